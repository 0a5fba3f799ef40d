/** Asks whether it may be known where somebody is, in plain words, before anything is; and what is said to who has taken that back. */
import { useState } from "preact/hooks";
import type { RequestError } from "../client/wire";
import { s } from "../strings";
import { Notice } from "../ui/parts";

type Props = { venue: string; onAgree: () => Promise<void> };

/** Of who has taken it back. They see the text again before they can agree again. */
export function Withdrawn({ onAgain }: { onAgain: () => void }) {
  return (
    <Notice title={s.consent.withdrawn} next={s.consent.withdrawnNext}>
      <button type="button" onClick={onAgain}>
        {s.consent.again}
      </button>
      <a class="button" href="#/">
        {s.back}
      </a>
    </Notice>
  );
}

export function ConsentSheet({ venue, onAgree }: Props) {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string>();
  const text = s.consent;
  const agree = () => {
    setBusy(true);
    setFailure(undefined);
    onAgree()
      .catch((error: RequestError) => setFailure(error.message))
      .finally(() => setBusy(false));
  };
  return (
    <section class="notice consent" aria-labelledby="consent-title">
      <h1 id="consent-title" dir="auto">
        {text.title(venue)}
      </h1>
      <ul>
        {text.points.map((point) => (
          <li key={point}>{point}</li>
        ))}
      </ul>
      <div class="row">
        <button type="button" class="primary" disabled={busy} onClick={agree}>
          {text.agree}
        </button>
        <a class="button" href="#/">
          {text.decline}
        </a>
      </div>
      {failure !== undefined && (
        <p class="alert-line" role="alert">
          {failure}
        </p>
      )}
      <small class="quiet">{text.version(text.id)}</small>
    </section>
  );
}
