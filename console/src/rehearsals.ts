/** Rehearsals over HTTP (docs/api.md): scenarios, runs, reports, under the operator's token of this tab. */
import { authorised, getJson } from "./http";

export type ScenarioLine = { name: string; title: string; venue: string };
export type Rehearsal = {
  run: string;
  scenario: string;
  title: string;
  venue: string;
  started_ms: number;
  state: "running" | "held" | "missed" | "failed" | "stopped";
  phase: "prepare" | "run" | "drain" | "judge";
  doing: string;
  share: number;
  tick: number;
  ticks: number;
  people: number;
  pushes: number;
  payments: number;
  said: string;
  picture: { tick: number; people: number; pushes: number; payments: number }[];
};

const path = (name: string) => encodeURIComponent(name);
export const scenarios = async (tenant: string): Promise<ScenarioLine[]> =>
  (await getJson<{ scenarios: ScenarioLine[] }>("v1/scenarios", authorised(tenant))).scenarios;
export const rehearsals = async (tenant: string): Promise<Rehearsal[]> => (await getJson<{ runs: Rehearsal[] }>("v1/runs", authorised(tenant))).runs;
export const rehearsal = (tenant: string, run: string): Promise<Rehearsal> => getJson(`v1/runs/${path(run)}`, authorised(tenant));
export const stopRehearsal = (tenant: string, run: string): Promise<Rehearsal> => getJson(`v1/runs/${path(run)}`, authorised(tenant, "DELETE"));
/** `venue`: one of the tenant's own, in place of the scenario's. */
export const beginRehearsal = (tenant: string, scenario: string, venue: string | undefined): Promise<Rehearsal> =>
  getJson(`v1/scenarios/${path(scenario)}/runs`, authorised(tenant, "POST", venue === undefined ? {} : { venue }));
export const rehearsalReport = (tenant: string, run: string): Promise<Blob> =>
  getJson(`v1/runs/${path(run)}/report.html`, authorised(tenant), (r) => r.blob());
