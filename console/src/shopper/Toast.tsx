/** An offer that reached me: dismissed, saved, or asked why. Acknowledged when it is on the screen, not before. */
import { useEffect, useState } from "preact/hooks";
import type { Offer, Push } from "../client/frames";
import { count, venueTime } from "../format";
import { s } from "../strings";
import type { VenueIndex } from "../venue";

/** Why a push came, from what is known here: the offer's audience and the tick. */
export function whyMe(push: Push, offer: Offer | undefined, shop: string): string[] {
  const time = venueTime(push.tick);
  if (offer === undefined) return [s.toast.whyUnknown(time)];
  const { audience } = offer;
  const reason =
    audience.type === "within" ? s.toast.whyWithin(count(audience.radius_m), shop, time) : audience.type === "inside" ? s.toast.whyInside(time) : s.toast.whyEveryone(time);
  return [reason, s.toast.cap(offer.cap)];
}

type Props = { push: Push; offer: Offer | undefined; index: VenueIndex; onShown: () => void; onDismiss: () => void; onSave: () => void };

export function Toast({ push, offer, index, onShown, onDismiss, onSave }: Props) {
  const [why, setWhy] = useState(false);
  const shop = index.byId.get(push.unit)?.name ?? push.unit;
  useEffect(() => {
    const frame = requestAnimationFrame(onShown);
    return () => cancelAnimationFrame(frame);
  }, [push.id]);
  return (
    <article class="toast" data-push={push.id} aria-label={push.title}>
      <header>
        <span class={`tag ${push.kind === "NEW_OFFER" ? "flash" : ""}`}>{push.kind === "NEW_OFFER" ? `◆ ${s.toast.newOffer}` : s.toast.nearby}</span>
        <span class="quiet" dir="auto">
          {shop}
        </span>
        <button type="button" class="icon" aria-label={s.toast.dismiss} onClick={onDismiss}>
          ×
        </button>
      </header>
      <b dir="auto">{push.title}</b>
      {push.text && <p dir="auto">{push.text}</p>}
      {why && (
        <div class="why" role="note">
          {whyMe(push, offer, shop).map((line) => (
            <p key={line}>{line}</p>
          ))}
        </div>
      )}
      <footer>
        <button type="button" class="primary" onClick={onSave}>
          {s.toast.save}
        </button>
        <button type="button" onClick={onDismiss}>
          {s.toast.dismiss}
        </button>
        <button type="button" class="link" aria-expanded={why} onClick={() => setWhy(!why)}>
          {s.toast.why}
        </button>
      </footer>
    </article>
  );
}
