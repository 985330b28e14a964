// Plots by Plotly, in the colors of the page.

const SERIES = ["--kept", "--chosen", "--third", "--fourth", "--fifth", "--sixth"];
const redraws = [];

function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Escape text for Plotly, which interprets some tags as formatting. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function axis(more = {}) {
  return {
    gridcolor: themeColor("--line"),
    linecolor: themeColor("--line"),
    zeroline: false,
    automargin: true,
    fixedrange: true,
    ...more,
    title: more.title ? { text: more.title, standoff: 8 } : undefined,
  };
}

/** A categorical axis; it shows as many names as there is room for. */
function named(id, names) {
  const room = Math.max(document.getElementById(id).clientWidth - 60, 120);
  const every = Math.ceil((names.length * 18) / room);
  const longest = Math.max(...names.map((name) => shortened(name).length));
  const places = [...names.keys()].filter((place) => place % every === 0);
  return axis({
    tickvals: places,
    ticktext: places.map((place) => plain(shortened(names[place]))),
    tickangle: names.length * longest * 7 > room ? -50 : 0,
    range: [-0.6, names.length - 0.4],
  });
}

/** Draw, or draw again with other data. */
function draw(id, traces, layout) {
  const whole = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: themeColor("--muted") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 44, r: 12, t: 12, b: 36 },
    height: 340,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: themeColor("--surface"), bordercolor: themeColor("--line"), font: { color: themeColor("--ink") } },
    ...layout,
  };
  return Plotly.react(id, traces, whole, { displayModeBar: false, responsive: true });
}

/** Draw now, and again when the theme changes. */
function keepDrawn(redraw) {
  redraws.push(redraw);
  redraw();
}

/** Load the plotting library, which is compressed in the page. */
async function loadPlotly() {
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

/** Quartiles of the scores of every layer, after each step of the criterion. */
function drawImportance(survey) {
  const names = survey.layers.map((layer) => layer.name);
  const positive = survey.stages.flatMap((stage) =>
    Object.values(stage.layers).flatMap(({ quartiles }) => quartiles.filter((value) => value > 0)),
  );
  const least = Math.min(...positive);
  const shown = (value) => Math.max(value, least); // a logarithmic axis has no zero
  const traces = survey.stages.map((stage, number) => {
    const found = names.map((name) => stage.layers[name]);
    const part = (place) => found.map((layer) => (layer ? shown(layer.quartiles[place]) : null));
    return {
      type: "box",
      name: plain(stage.name),
      x: names.map((_, place) => place),
      lowerfence: part(0),
      q1: part(1),
      median: part(2),
      q3: part(3),
      upperfence: part(4),
      mean: found.map((layer) => (layer ? shown(layer.mean) : null)),
      boxmean: true,
      line: { width: 1.2 },
      marker: { color: themeColor(SERIES[number % SERIES.length]) },
    };
  });
  const scale = axis({ type: "log", title: "score of a neuron", exponentformat: "power", dtick: 1 });
  draw("importance-plot", traces, { boxmode: "group", boxgap: 0.25, xaxis: named("importance-plot", names), yaxis: scale, height: 420 });
}
