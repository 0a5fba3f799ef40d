/** Edits of the map: the unit that is chosen, opened, closed or renamed; the history with undo and redo. */
import { useEffect, useState } from "preact/hooks";
import { count } from "../format";
import { Search } from "../operator/Search";
import { Fault, useAct } from "../operator/shell";
import { s } from "../strings";
import type { Spot, VenueIndex } from "../venue";
import type { SpaceModel } from "./model";
import { editText } from "./shapes";

const LISTED = 30;

type Props = {
  index: VenueIndex;
  model: SpaceModel;
  live: boolean;
  chosen: Spot | undefined;
  onChoose: (spot: Spot) => void;
  /** The map is another one now. */
  onEdited: () => void;
};

export function Edits({ index, model, live, chosen, onChoose, onEdited }: Props) {
  const { busy, fault, act } = useAct();
  const told = model.edits.value;
  const refused = model.failure.value.edits;
  const can = live && !busy && told !== undefined;
  const edit = (work: () => Promise<void>) => void act(work).then((done) => done && onEdited());
  const done = [...(told?.done ?? [])].reverse();
  if (refused?.code === "forbidden") return <p class="quiet">{s.edits.forbidden}</p>;
  return (
    <>
      <Search
        name="unit"
        index={index}
        label={s.edits.unit}
        value={chosen?.name ?? ""}
        accepts={(spot) => spot.kind === "unit"}
        onChoose={onChoose}
      />
      {chosen === undefined || chosen.kind !== "unit" ? (
        <p class="quiet">{s.edits.hint}</p>
      ) : (
        <Unit
          key={chosen.id}
          unit={chosen}
          level={index.doc.levels[chosen.level]?.name ?? ""}
          can={can}
          onOpen={(open) => edit(() => model.edit({ type: open ? "open_unit" : "close_unit", unit_id: chosen.id }))}
          onName={(name) => edit(() => model.edit({ type: "relabel", unit_id: chosen.id, ...(chosen.isOccupied ? { occupant: name } : { name }) }))}
        />
      )}
      <Fault message={fault ?? refused?.message} />
      <div class="row">
        <button type="button" disabled={!can || done.length === 0} onClick={() => edit(() => model.undo())}>
          {s.edits.undo}
        </button>
        <button type="button" disabled={!can || told?.undone === 0} onClick={() => edit(() => model.redo())}>
          {s.edits.redo}
          {told !== undefined && told.undone > 0 && ` (${count(told.undone)})`}
        </button>
      </div>
      <section>
        <h3>{s.edits.history}</h3>
        {done.length === 0 ? (
          <p class="quiet">{s.edits.noHistory}</p>
        ) : (
          <ol class="history">
            {done.slice(0, LISTED).map((one, i) => (
              <li key={done.length - i} dir="auto">
                {editText(one, index)}
              </li>
            ))}
          </ol>
        )}
        {done.length > LISTED && <p class="quiet">{s.edits.more(count(done.length - LISTED))}</p>}
      </section>
    </>
  );
}

function Unit(props: { unit: Spot; level: string; can: boolean; onOpen: (open: boolean) => void; onName: (name: string) => void }) {
  const { unit, can } = props;
  const [name, setName] = useState(unit.name);
  useEffect(() => setName(unit.name), [unit.name]);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        props.onName(name.trim());
      }}
    >
      <p class="quiet">
        {unit.isClosed ? s.edits.isClosed : unit.category} · {props.level} · {count(unit.areaM2)} m²
      </p>
      <label>
        {s.edits.nameLabel}
        <input required maxLength={120} dir="auto" value={name} onInput={(e) => setName(e.currentTarget.value)} />
      </label>
      <div class="row">
        <button type="submit" class="primary" disabled={!can || name.trim() === "" || name.trim() === unit.name}>
          {s.edits.rename}
        </button>
        <button type="button" disabled={!can} onClick={() => props.onOpen(unit.isClosed)}>
          {unit.isClosed ? s.edits.open : s.edits.close}
        </button>
      </div>
    </form>
  );
}
