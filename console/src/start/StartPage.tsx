/** With no path: the venues, each with its two ways in. */
import { useEffect, useState } from "preact/hooks";
import type { RequestError } from "../client/wire";
import { type ConsoleInfo, consoleInfo } from "../http";
import { s } from "../strings";
import { Notice, ThemeButton } from "../ui/parts";
import { DEFAULT_LAYERS, formatView } from "../url";

export function StartPage() {
  const [info, setInfo] = useState<ConsoleInfo>();
  const [failure, setFailure] = useState<RequestError>();
  useEffect(() => {
    let gone = false;
    const ask = () =>
      consoleInfo()
        .then((fresh) => {
          if (gone) return;
          setInfo(fresh);
          setFailure(undefined);
        })
        .catch((error: RequestError) => !gone && setFailure(error));
    void ask();
    const timer = setInterval(ask, 3000);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, []);
  return (
    <main class="start">
      <header>
        <div>
          <h1>{s.brand}</h1>
          <p>{s.start.lead}</p>
        </div>
        <ThemeButton />
      </header>
      {failure && info === undefined && <Notice alert title={failure.message} next={s.states.failedNext} />}
      {info && info.venues.length === 0 && <Notice title={s.start.empty} next={s.start.emptyNext} />}
      {info && info.venues.length > 0 && (
        <ul class="venues" aria-label={s.start.venues}>
          {info.venues.map((venue) => (
            <li class="panel" key={`${venue.tenant}/${venue.id}`}>
              <small>
                {venue.kind === "festival" ? s.start.festival : s.start.mall} · {venue.tenant}
              </small>
              <h2 dir="auto">{venue.name}</h2>
              <div class="row">
                <a class="button primary" href={formatView({ screen: "operator", tenant: venue.tenant, venue: venue.id, layers: DEFAULT_LAYERS })}>
                  {s.start.operator}
                </a>
                <a class="button" href={formatView({ screen: "shopper", tenant: venue.tenant, venue: venue.id })}>
                  {s.start.shopper}
                </a>
              </div>
            </li>
          ))}
        </ul>
      )}
    </main>
  );
}
