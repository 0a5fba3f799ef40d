/** Asks whether it may be known where somebody is, in plain words, before anything is; and what is said to who has taken that back. */
import { useState } from "preact/hooks";
import type { RequestError } from "../client/wire";
import { s } from "../strings";

type Props = { venue: string; withdrawn: boolean; onAgree: () => Promise<void> };

export function ConsentSheet({ venue, withdrawn, onAgree }: Props) {
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
        {withdrawn ? text.withdrawn : text.title(venue)}
      </h1>
      {withdrawn ? (
        <p>{text.withdrawnNext}</p>
      ) : (
        <ul>
          {text.points.map((point) => (
            <li key={point}>{point}</li>
          ))}
        </ul>
      )}
      <div class="row">
        <button type="button" class="primary" disabled={busy} onClick={agree}>
          {withdrawn ? text.again : text.agree}
        </button>
        <a class="button" href="#/">
          {withdrawn ? s.back : text.decline}
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
