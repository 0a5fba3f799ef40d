/** The page: reads the address, loads the venue, shows one of four screens. */
import "@fontsource-variable/inter";
import "./ui/tokens.css";
import "./ui/app.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ArView } from "./ar/ArView";
import type { RequestError } from "./client/wire";
import { memory, venueDocument } from "./http";
import { OperatorView } from "./operator/OperatorView";
import { ShopperView } from "./shopper/ShopperView";
import { finishSignIn, refreshed, startSignIn } from "./signin";
import { StartPage } from "./start/StartPage";
import { s } from "./strings";
import { Notice, SignIn } from "./ui/parts";
import "./ui/theme";
import { formatView, parseView, type View } from "./url";
import { VenueIndex } from "./venue";

function App() {
  const [view, setView] = useState<View>(parseView(location.hash));
  const [venue, setVenue] = useState<{ key: string; index?: VenueIndex; failure?: RequestError }>();
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const onHash = () => setView(parseView(location.hash));
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);
  const key = view.screen === "start" ? "" : `${view.tenant}/${view.venue}`;
  useEffect(() => {
    if (view.screen === "start") return;
    let gone = false;
    setVenue(undefined);
    venueDocument(view.tenant, view.venue)
      .catch(async (failure: RequestError) => {
        const again = failure.code === "unauthenticated" && view.screen !== "shopper" && (await refreshed(view.tenant)) !== undefined;
        if (!again) throw failure;
        return venueDocument(view.tenant, view.venue);
      })
      .then((doc) => !gone && setVenue({ key, index: new VenueIndex(doc) }))
      .catch((failure: RequestError) => !gone && setVenue({ key, failure }));
    return () => {
      gone = true;
    };
  }, [key, attempt]);
  useEffect(() => {
    document.title = view.screen === "start" ? s.brand : `${venue?.index?.doc.name ?? view.venue} · ${s.brand}`;
  }, [view.screen, venue]);

  /** Read the venue's map again, and show it in place of the one that is shown. */
  const onEdited = () => {
    if (view.screen === "start") return;
    venueDocument(view.tenant, view.venue)
      .then((doc) => setVenue((shown) => (shown?.key === key ? { key, index: new VenueIndex(doc) } : shown)))
      .catch((failure: RequestError) => setVenue({ key, failure }));
  };
  // The address follows the view without filling the history: back leaves the screen.
  const onView = (next: View) => {
    history.replaceState(null, "", formatView(next));
    setView(next);
  };
  if (view.screen === "start") return <StartPage />;
  if (venue === undefined || venue.key !== key) {
    return (
      <main class="centre" aria-busy="true">
        <p class="quiet loading">{s.states.loading}</p>
      </main>
    );
  }
  if (venue.failure?.code === "unauthenticated" && view.screen !== "shopper") {
    const { tenant } = view;
    return (
      <main class="centre">
        <SignIn
          onBack="#/"
          onPassword={() => void startSignIn(tenant)}
          onToken={(token) => {
            memory.set(`operator.${tenant}.token`, token);
            setAttempt(attempt + 1);
          }}
        />
      </main>
    );
  }
  if (venue.index === undefined) {
    const missing = venue.failure?.code === "not_found";
    return (
      <main class="centre">
        <Notice
          alert
          title={missing ? s.states.notFound(view.venue) : s.states.failed}
          next={missing ? s.states.notFoundNext : (venue.failure?.message ?? s.states.failedNext)}
        >
          {!missing && (
            <button type="button" class="primary" onClick={() => setAttempt(attempt + 1)}>
              {s.retry}
            </button>
          )}
          <a class="button" href="#/">
            {s.back}
          </a>
        </Notice>
      </main>
    );
  }
  if (view.screen === "operator") return <OperatorView key={key} view={view} index={venue.index} onView={onView} onEdited={onEdited} />;
  if (view.screen === "ar") return <ArView key={key} view={view} index={venue.index} onView={onView} />;
  return <ShopperView key={key} view={view} index={venue.index} onView={onView} />;
}

void finishSignIn().finally(() => render(<App />, document.getElementById("app")!));
