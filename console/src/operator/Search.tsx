/** A place by its name: a combobox over the venue document, no server asked. */
import { useEffect, useRef, useState } from "preact/hooks";
import { s } from "../strings";
import type { Spot, VenueIndex } from "../venue";
import { isTyping } from "./shell";

type Props = {
  index: VenueIndex;
  label: string;
  onChoose: (spot: Spot) => void;
  /** What stands in the field until somebody types. */
  value?: string;
  /** Whether `/` brings the focus here; one on a page. */
  shortcut?: boolean;
  /** Told apart where there are several on a page. */
  name?: string;
  accepts?: (spot: Spot) => boolean;
};

export function Search({ index, label, onChoose, value, shortcut = false, name = "search", accepts }: Props) {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(value ?? "");
  useEffect(() => setText(value ?? ""), [value]);
  const [at, setAt] = useState(0);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (!shortcut) return;
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "/" && !isTyping(event)) {
        event.preventDefault();
        input.current?.focus();
        input.current?.select();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [shortcut]);
  const found = open
    ? index
        .search(text, accepts ? 40 : 8)
        .filter((spot) => accepts?.(spot) ?? true)
        .slice(0, 8)
    : [];
  const choose = (spot: Spot | undefined) => {
    if (spot === undefined) return;
    onChoose(spot);
    setText(spot.name);
    setOpen(false);
    input.current?.blur();
  };
  return (
    <div class="search">
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path
          d="M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9ZM10.5 10.5 14 14"
          fill="none"
          stroke="currentColor"
          stroke-width="1.6"
          stroke-linecap="round"
        />
      </svg>
      <input
        ref={input}
        type="text"
        role="combobox"
        aria-expanded={open && text !== ""}
        aria-controls={`${name}-list`}
        aria-activedescendant={open && found[at] ? `${name}-${at}` : undefined}
        aria-label={label}
        placeholder={label}
        value={text}
        onFocus={() => setOpen(true)}
        onBlur={() => setTimeout(() => setOpen(false), 120)}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
          setOpen(true);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt(Math.min(found.length - 1, at + 1));
          else if (event.key === "ArrowUp") setAt(Math.max(0, at - 1));
          else if (event.key === "Enter") choose(found[at]);
          else if (event.key === "Escape") {
            setText(value ?? "");
            input.current?.blur();
          } else return;
          event.preventDefault();
        }}
      />
      {shortcut && <kbd>{s.operator.searchKey}</kbd>}
      {open && text !== "" && (
        <ul id={`${name}-list`} role="listbox" aria-label={label}>
          {found.map((spot, i) => (
            // biome-ignore lint/a11y/useKeyWithClickEvents: the input holds the focus and its keys choose
            <li
              key={spot.id}
              id={`${name}-${i}`}
              role="option"
              aria-selected={i === at}
              tabIndex={-1}
              onMouseDown={(e) => e.preventDefault()}
              onClick={() => choose(spot)}
            >
              <span dir="auto">{spot.name}</span>
              <small>
                {spot.category} · {index.doc.levels[spot.level]?.short_name}
              </small>
            </li>
          ))}
          {found.length === 0 && <li class="quiet">{s.operator.noMatch}</li>}
        </ul>
      )}
    </div>
  );
}
