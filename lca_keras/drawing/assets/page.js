// A theme that was chosen stays chosen; otherwise it is the system's.
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
function keep(value) { try { localStorage.setItem("theme", value); } catch (e) {} }
function kept() { try { return localStorage.getItem("theme"); } catch (e) { return null; } }
function show(name) {
  document.documentElement.dataset.theme = name;
  theme.textContent = name === "dark" ? "Light" : "Dark";
}
show(kept() || (dark.matches ? "dark" : "light"));
dark.addEventListener("change", () => { if (!kept()) show(dark.matches ? "dark" : "light"); });
theme.addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  keep(next);
  show(next);
});
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  // A score begins with its number, 0.91 / 0.95; a name may begin with one too.
  const number = text.match(/^[+\-\u2212]?[\d,]*\.?\d+(?=$|[\s%\/])/);
  return [text, number ? Number(number[0].replace("\u2212", "-").replaceAll(",", "")) : NaN];
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [row, ...valueOf(row, head.cellIndex)]);
    rows.sort(([, a, x], [, b, y]) => {
      if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);  // Empty cells last.
      const order = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
      return up ? order : -order;
    });
    body.append(...rows.map(([row]) => row));
  });
}
