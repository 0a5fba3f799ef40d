"""`report.html`: the report as one page that opens from disk, needs no network and prints well.

Owns the order and the words of the page: first whether it held and the three facts behind it, then plots, each with one sentence that says what to see.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from scenarios import plots
from scenarios.report import RunReport
from spatial.venue import Venue

_STYLE: Final = (
    """
:root{color-scheme:light dark;--paper:#fcfcfb;--ink:#1b1d20;--quiet:#646a73;--line:#dfe2e6;--ground:#eef0f2;--unit:#8c939c;--good:#1d6b4a;--bad:#b3261e;
--c0:#31688e;--c1:#7fb3a6;--c2:#c9a227;--c3:#6d5a8d;--c4:#a8b8c8;--c5:#8f6f4e}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e8eaed;--quiet:#9aa1ab;--line:#2d3137;--ground:#22262b;--unit:#6d747e;--good:#6fcf9f;--bad:#ff8a80;
--c0:#6ba6cf;--c1:#8fc7b8;--c2:#e0bf57;--c3:#a791cb;--c4:#71808f;--c5:#c09a74}}
@media print{:root{--paper:#fff;--ink:#000;--quiet:#444}main{max-width:none;padding:0}section,figure{break-inside:avoid}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:960px;margin:0 auto;padding:40px 20px 64px}h1{font-size:20px;font-weight:600;margin:0}h2{font-size:15px;font-weight:600;margin:40px 0 4px}
p{margin:0 0 8px}.quiet,figcaption,.see{color:var(--quiet)}.answer{font-size:48px;line-height:1.1;font-weight:650;letter-spacing:-.02em;margin:24px 0 12px}
.yes{color:var(--good)}.no{color:var(--bad)}ol.facts{list-style:none;margin:0;padding:0;font-size:18px;line-height:1.45}ol.facts li{padding:10px 0;border-top:1px solid var(--line)}
ol.facts li:last-child{border-bottom:1px solid var(--line)}.warn{border-left:3px solid var(--bad);padding:4px 12px;margin:16px 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:16px;margin:24px 0}.figures b{display:block;font-size:24px;font-weight:600;line-height:1.2}
table{border-collapse:collapse;width:100%;font-size:14px}th{font-weight:500;color:var(--quiet);text-align:left}td,th{padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}svg{display:block;width:100%;height:auto}figure{margin:8px 0 0}.floors{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:20px}
code{font:13px ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}.grid{stroke:var(--line);stroke-width:1}.tick,.axis,.marked{font:11px system-ui,sans-serif;fill:var(--quiet)}
.mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:3 3}.marked{fill:var(--ink)}.ground{fill:var(--ground);stroke:var(--unit);stroke-width:.8;fill-rule:evenodd}
.unit{fill:none;stroke:var(--unit);stroke-width:.5}.legend span{margin-right:16px;font-size:13px}.legend i,.ramp i{display:inline-block;width:12px;height:12px;margin-right:6px;vertical-align:-1px}
.ramp{font-size:13px;color:var(--quiet)}.ramp i{width:18px;margin:0}.ramp span{margin:0 8px 0 0}.ramp span:last-child{margin-left:8px}
"""
    + "".join(f".s{i}{{fill:var(--c{i});}}.l{i}{{fill:none;stroke:var(--c{i});stroke-width:1.6}}.k{i}{{background:var(--c{i})}}" for i in range(6))
    + plots.ramp_style()
)


def save_html(report: RunReport, venue: Venue, path: Path) -> None:
    """Write report.html."""
    path.write_text(page(report, venue), encoding="utf-8")


def page(report: RunReport, venue: Venue) -> str:
    """The whole page."""
    body = "".join(
        (
            _first_screen(report),
            _people(report),
            _density(report, venue),
            _traffic(report),
            _latency(report),
            _machine(report),
            _money(report),
            _evidence(report),
        )
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}: {'held' if report.held else 'did not hold'}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _first_screen(report: RunReport) -> str:
    when = datetime.fromtimestamp(report.started_unix_ms / 1000, UTC).strftime("%d %B %Y, %H:%M UTC")
    failed = [t for t in report.thresholds if not t.held]
    answer = "It held." if report.held else "It did not hold."
    figures = [
        (f"{report.metrics['people_inside_max']:,.0f}", "people at once"),
        (f"{report.metrics['pushes']:,.0f}", "pushes received"),
        (f"{report.metrics['payments']:,.0f}", "payments acknowledged"),
        (f"{report.latency.p99_ms:,.0f} ms", "push latency, p99"),
        (f"{report.metrics['real_time_factor']:.2f} x", "real time"),
    ]
    speed = "as fast as it could" if report.speed == 0 else f"at speed {report.speed:g}"
    about = f"{report.venue_name}, {report.ticks / 600:g} venue minutes {speed}, seed {report.seed}; {when}"
    missed = "".join(
        f"<p class=warn>Missed: {escape(t.metric)} {escape(t.op)} {t.value:g}, measured {_shown(t.measured)}{_why(t.why)}</p>" for t in failed
    )
    return (
        f"<h1>{escape(report.title)}</h1><p class=quiet>{escape(about)}</p>"
        f'<p class="answer {"yes" if report.held else "no"}">{answer}</p>'
        f"<ol class=facts>{''.join(f'<li>{escape(fact)}</li>' for fact in report.facts)}</ol>{missed}"
        f"{''.join(f'<p class=warn>{escape(text)}</p>' for text in report.warnings)}"
        f"<div class=figures>{''.join(f'<div><b>{value}</b><span class=quiet>{name}</span></div>' for value, name in figures)}</div>{_thresholds(report)}"
    )


def _why(why: str) -> str:
    return f" (void: {escape(why)})" if why else ""


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


def _thresholds(report: RunReport) -> str:
    if not report.thresholds:
        return "<h2>Thresholds</h2><p class=see>The scenario sets none.</p>"
    rows = "".join(
        f'<tr><td class="{"yes" if t.held else "no"}">{"held" if t.held else "missed"}</td><td>{escape(t.metric)}<br><span class=quiet>{escape(t.meaning)}</span></td>'
        f"<td class=n>{escape(t.op)} {_shown(t.value)}</td><td class=n>{_shown(t.measured)}</td><td>{escape(t.unit)}</td></tr>"
        for t in report.thresholds
    )
    held = sum(t.held for t in report.thresholds)
    return (
        f"<section><h2>Thresholds</h2><p class=see>{held} of {len(report.thresholds)} held; the run holds when all do.</p>"
        f"<table><tr><th></th><th>metric</th><th class=n>asked</th><th class=n>measured</th><th></th></tr>{rows}</table></section>"
    )


def _section(title: str, see: str, figure: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p class=see>{escape(see)}</p><figure>{figure}</figure></section>"


def _marks(report: RunReport) -> list[tuple[float, str]]:
    """Flash sales and faults, over venue minutes."""
    sales = [((o.starts_tick - report.first_tick) / 600, "flash sale") for o in report.offers if o.flash]
    return [*sales, *((fault.minute, f"{fault.kind}: {fault.what}") for fault in report.faults)]


def _people(report: RunReport) -> str:
    x = [(second.tick - report.first_tick) / 600 for second in report.people]
    series = [(name, [second.inside[i] for second in report.people]) for i, name in enumerate(report.levels)]
    see = "See how the venue fills, and on which level people are: counted in the recording, second by second."
    return _section("People inside", see, plots.stacked(x, series, x_label="venue minutes", y_label="people", marks=_marks(report)))


def _density(report: RunReport, venue: Venue) -> str:
    minute = (report.busiest_tick - report.first_tick) / 600
    floors = "".join(
        f"<div>{plots.floor(grid, venue)}<figcaption>{escape(report.levels[grid.level])}: {sum(map(sum, grid.count)):,} people</figcaption></div>"
        for grid in report.busiest
    )
    see = f"See where people stood closest at the busiest moment, minute {minute:.1f}: the further along the scale, the more crowded; plain ground is empty."
    return _section("The busiest moment", see, f"{plots.ramp()}<div class=floors>{floors}</div>")


def _traffic(report: RunReport) -> str:
    top = sorted(report.offers, key=lambda o: -o.pushes)[:10]
    rows = "".join(f"<tr><td>{escape(o.title)}</td><td>{'flash sale' if o.flash else 'nearby'}</td><td class=n>{o.pushes:,}</td></tr>" for o in top)
    marks = _marks(report)
    return (
        _section("Pushes", "See the steady passing-by traffic, and the spike where a flash sale told everyone at once.",
                 plots.each_second(report.pushes_each_second, y_label="pushes a second, square-root scale", marks=marks, root=True))
        + f"<table><tr><th>offer</th><th></th><th class=n>pushes</th></tr>{rows}</table>"
        + _section("Payments", "See how often tills rang: acknowledged payments by the second in which they were made.",
                   plots.each_second(report.payments_each_second, y_label="payments a second", marks=marks))
    )  # fmt: skip


def _latency(report: RunReport) -> str:
    late = report.latency
    marks = [(late.p50_ms, f"p50 {late.p50_ms:,.1f} ms"), (late.p99_ms, f"p99 {late.p99_ms:,.1f} ms"), (late.max_ms, f"max {late.max_ms:,.1f} ms")]
    rows = "".join(
        f"<tr><td>{name}</td><td class=n>{d.count:,}</td><td class=n>{d.p50_ms:,.1f}</td><td class=n>{d.p90_ms:,.1f}</td><td class=n>{d.p99_ms:,.1f}</td>"
        f"<td class=n>{d.p999_ms:,.1f}</td><td class=n>{d.max_ms:,.1f}</td></tr>"
        for name, d in (("push", late), ("payment", report.payment_latency), ("generator: lateness of sends", report.generator_lag))
    )
    see = (
        "See the time from when a sample inside the fence was due to the receipt of the push; it counts from the intended time, so a stall shows as a tail and is not hidden. "
        + (
            "The generator itself was late: these figures are not the service's."
            if report.generator_bottleneck
            else "The last row of the table says how late the load generator was."
        )
    )
    table = f"<table><tr><th>milliseconds</th><th class=n>samples</th><th class=n>p50</th><th class=n>p90</th><th class=n>p99</th><th class=n>p99.9</th><th class=n>max</th></tr>{rows}</table>"
    return _section("Push latency", see, plots.durations(late.bars, marks=marks) + table)


def _machine(report: RunReport) -> str:
    names = sorted({shard.shard for sample in report.samples for shard in sample.shards})

    def of(field: str) -> list[tuple[str, list[float], list[float]]]:
        found = []
        for name in names:
            points = [(sample.at_s, float(getattr(shard, field))) for sample in report.samples for shard in sample.shards if shard.shard == name]
            found.append((name, [x for x, _ in points], [y for _, y in points]))
        return found

    tick = [("close of a tick", [s.at_s for s in report.samples], [s.tick_ms for s in report.samples])]
    faults = "".join(
        f"<tr><td>minute {f.minute:g}</td><td>{escape(f.kind)}: {escape(f.what)}</td><td class=n>{f.away_s:,.2f} s</td><td>{'came back' if f.returned else 'did not come back'}</td></tr>"
        for f in report.faults
    )
    table = (
        f"<table><tr><th>fault</th><th></th><th class=n>away</th><th></th></tr>{faults}</table>"
        if faults
        else "<p class=see>No fault was injected.</p>"
    )
    return (
        _section("Shards", "See how many turns each shard took; a gap is a shard that was away.", plots.lines(of("turns_per_s"), x_label="seconds", y_label="turns a second"))
        + _section("Queues", "See requests that wait in mailboxes: a line that climbs and does not fall is overload.", plots.lines(of("mailbox"), x_label="seconds", y_label="requests waiting"))
        + _section("Time to close a tick", "See whether closing a tick stays well below its 100 ms.", plots.lines(tick, x_label="seconds", y_label="milliseconds"))
        + f"<section><h2>Faults</h2>{table}</section>"
    )  # fmt: skip


def _money(report: RunReport) -> str:
    books = report.books
    rows = "".join(
        f"<tr><td>{escape(c)}</td><td class=n>{books.wallets[c]:,}</td><td class=n>{books.tills[c]:,}</td><td class=n>{books.outside[c]:,}</td><td class=n>{books.sum[c]:,}</td></tr>"
        for c in sorted(books.sum)
    )
    see = (
        f"See the last column: every account of a currency together is zero, in minor units, folded from {books.payments:,} payments and {books.top_ups:,} top-ups of the journal. "
        f"{books.acked:,} payments were acknowledged to clients; {books.acked_lost:,} of them are lost, {books.twice:,} were booked twice."
    )
    head = "<tr><th>currency</th><th class=n>wallets</th><th class=n>tills</th><th class=n>outside</th><th class=n>sum</th></tr>"
    return f"<section><h2>Books</h2><p class=see>{escape(see)}</p><table>{head}{rows}</table></section>"


def _evidence(report: RunReport) -> str:
    oracle = report.oracle
    void = f"<p class=warn>The hash is void: {escape(report.hash.void)}.</p>" if report.hash.void else ""
    processes = "".join(
        f"<tr><td>{escape(p.process)}</td><td class=n>{p.people:,}</td><td class=n>{p.pushes:,}</td><td class=n>{p.payments:,}</td><td class=n>{p.reconnects}</td>"
        f"<td class=n>{p.rewinds}</td><td class=n>{p.stalls}</td><td class=n>{p.lag_p99_ms:,.1f}</td></tr>"
        for p in report.processes
    )
    versions = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in sorted(report.versions.items()))
    examples = "".join(f"<br><code>{escape(line)}</code>" for line in oracle.examples)
    recording = f"{report.recording.rows:,} rows in {report.recording.parts} parts" + (
        "" if report.recording.complete else f", incomplete: {report.recording.rows_dropped:,} dropped"
    )
    return (
        f"<section><h2>Evidence</h2><p class=see>Run it again with the same seed and this hash is the same; with another seed it is another.</p>{void}<table>"
        f"<tr><td>hash of {report.hash.facts:,} facts</td><td><code>{report.hash.hex}</code></td></tr>"
        f"<tr><td>oracle</td><td>{oracle.expected:,} pushes expected from {oracle.rows:,} recorded positions, {oracle.received:,} received, {oracle.missing:,} missing, "
        f"{oracle.unexpected:,} not due, {oracle.excused:,} owed to people who had hung up{examples}</td></tr>"
        f"<tr><td>recording</td><td>{recording}</td></tr>"
        f"<tr><td>tenant</td><td><code>{escape(report.tenant)}</code></td></tr></table></section>"
        "<section><h2>Load generator</h2><p class=see>See who sent what: lateness is against the intended times.</p><table><tr><th>process</th><th class=n>people</th><th class=n>pushes</th>"
        f"<th class=n>payments</th><th class=n>reconnects</th><th class=n>rewinds</th><th class=n>stalls</th><th class=n>late p99 ms</th></tr>{processes}</table></section>"
        f"<section><h2>Versions</h2><table>{versions}</table></section>"
    )
