const content = JSON.parse(document.getElementById("data").textContent);
const RESOURCES = content.resources;

/** The theme follows the system until the reader selects one. */
function startTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const set = (theme) => {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
    for (const redraw of redraws) redraw();
  };
  button.addEventListener("click", () => set(root.dataset.theme === "dark" ? "light" : "dark"));
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", () => set(system.matches ? "dark" : "light"));
  set(root.dataset.theme);
}

async function start() {
  startTheme();
  const hasExplorer = content.survey && document.getElementById("step");
  const curves = document.getElementById("metric");
  if (!hasExplorer && !curves) return;
  await loadPlotly();
  if (hasExplorer) new Explorer(content.survey);
  if (curves) drawTraining(content.runs);
}

start().finally(() => (document.documentElement.dataset.ready = "yes"));
