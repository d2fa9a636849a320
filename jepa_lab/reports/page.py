"""Style and script of the HTML report."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --muted: #57606a; --line: #d0d7de;
  --stripe: #f4f6f8; --accent: #0059a8; --warn: #b35900; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191e; --ink: #e6eaee; --muted: #a3adb8; --line: #3a424c;
  --stripe: #1d2329; --accent: #7cc0ff; --warn: #f0883e; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.6rem; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.3rem 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
main:focus { outline: none; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 0.5rem; padding: 0.5rem 1rem; background: var(--paper); z-index: 2; }
.said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.scroll { overflow-x: auto; }
.files { color: var(--muted); font-size: 0.85rem; margin: 0.4rem 0; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.85rem; overflow-wrap: break-word; }
caption { text-align: left; color: var(--muted); padding-bottom: 0.4rem; }
th, td { padding: 0.4rem 0.5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--muted); vertical-align: bottom; }
tbody th { font-weight: normal; position: sticky; left: 0; background: inherit; }
tbody tr { background: var(--paper); }
tbody tr:nth-child(even) { background: var(--stripe); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number span span, td.number strong span { white-space: nowrap; }
.heading { display: none; }
tbody th:not(.number), tbody td:not(.number) { max-width: 18rem; }
tbody .long { min-width: 11rem; }
tbody th:not(.number) { min-width: 7rem; }
@media (max-width: 40rem) {
  table, caption, tbody, tbody tr, tbody th, tbody td { display: block; }
  table { width: 100%; }
  thead { display: none; }
  tbody tr { padding: 0.5rem 0.6rem; border-bottom: 1px solid var(--line); }
  tbody th:not(.number), tbody td:not(.number) { max-width: none; min-width: 0; }
  tbody th, tbody td { position: static; display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: 0.1rem 0; text-align: right; }
  tbody th:not(.number) { font-weight: bold; text-align: left; }
  tbody th:not(.number) .heading { display: none; }
  tbody td:empty { display: none; }
  .heading { display: inline; color: var(--muted); text-align: left; flex: 1 1 7rem; }
  .heading + span { max-width: 70%; }
  th .heading { font-weight: normal; }
}
th small { display: block; font-weight: normal; color: var(--muted); }
th button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0; padding: 0.2rem 0;
  min-height: 1.7rem; text-align: inherit; cursor: pointer; }
th button span::after { content: "\\a0\\2195"; color: var(--muted); }
th[aria-sort="ascending"] button span::after { content: "\\a0\\2191"; color: var(--accent); }
th[aria-sort="descending"] button span::after { content: "\\a0\\2193"; color: var(--accent); }
figure { margin: 1.5rem 0; }
figcaption { font-weight: bold; margin-bottom: 0.4rem; }
img { display: block; width: 100%; max-width: 60rem; height: auto; border-radius: 4px; }
details { margin-top: 0.3rem; color: var(--muted); font-size: 0.9rem; }
summary { cursor: pointer; padding: 0.3rem 0; }
li { margin: 0.25rem 0; }
.footnotes { color: var(--muted); font-size: 0.85rem; }
.verdict { border-left: 0.3rem solid var(--warn); padding: 0.4rem 0.8rem; background: var(--stripe);
  font-weight: bold; }
@media print { .skip, nav { display: none; } .scroll { overflow: visible; } }
"""

SCRIPT = """
"use strict";
const said = document.querySelector(".said");
// A click sorts downwards first where numbers are, since the best is looked for; a second one turns the order round.
function key(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.sort === undefined) return cell.textContent.toLowerCase();
  return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
}
function sortBy(head, column) {
  const body = head.closest("table").tBodies[0];
  const before = head.getAttribute("aria-sort");
  const down = before === null ? head.classList.contains("number") : before === "ascending";
  const rows = Array.from(body.rows).map((row) => ({ row, key: key(row, column) }));
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    const order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key);
    return down ? -order : order;
  });
  body.append(...rows.map((each) => each.row));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  said.textContent = `Sorted by ${head.textContent}, ${down ? "descending" : "ascending"}.`;
}
for (const row of document.querySelectorAll("thead tr")) {
  Array.from(row.cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head, column));
    head.append(button);
  });
}
"""
