// The network as a graph, drawn once; the slider only changes the filled part of each bar.

const STEP = 58, BAR = 120, LANE = 186;

/** A column for each node, after all its inputs, and a lane within the column. */
function placed(nodes) {
  const columns = [];
  const places = [];
  nodes.forEach((node, number) => {
    const column = 1 + Math.max(-1, ...node.sources.map((source) => places[source].column));
    (columns[column] ??= []).push(number);
    places[number] = { column, lane: 0 };
  });
  for (const inside of columns) {
    const preferred = (number) => {
      const lanes = nodes[number].sources.map((source) => places[source].lane);
      return lanes.length ? lanes.reduce((sum, lane) => sum + lane, 0) / lanes.length : 0;
    };
    inside.sort((a, b) => preferred(a) - preferred(b) || a - b);
    inside.forEach((number, place) => (places[number].lane = place - (inside.length - 1) / 2));
  }
  return places;
}

function svg(kind, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A line between two nodes; if it skips columns in its lane, it bends over the nodes between. */
function edge(from, to) {
  const span = to.column - from.column;
  if (span > 1 && from.lane === to.lane) {
    const top = Math.min(from.top, to.top) - 14 - 9 * Math.min(span, 14);
    return svg("path", { class: "edge", d: `M${from.x} ${from.top} C${from.x} ${top}, ${to.x} ${top}, ${to.x} ${to.top}` });
  }
  const [start, end] = [from.x + from.half, to.x - to.half];
  const bend = Math.min((end - start) / 2, 40);
  return svg("path", { class: "edge", d: `M${start} ${from.y} C${start + bend} ${from.y}, ${end - bend} ${to.y}, ${end} ${to.y}` });
}

const SIGNS = { add: "+", sub: "−", mul: "×", cat: "∥" };

/** One node: a bar, a circle or a dot, with its name below. */
function glyph(node, { x, y, half, height }, layer) {
  const title = svg("title", {}, `${node.name || node.kind}, ${node.shape.join(" × ")}`);
  if (node.kind === "layer") {
    const filled = svg("rect", { class: "kept", x: x - half, width: 2 * half, rx: 2 });
    const outline = svg("rect", { class: "outline", x: x - half, y: y - height / 2, width: 2 * half, height, rx: 2 });
    const count = svg("text", { class: "count", x, y: y + BAR / 2 + 14, "text-anchor": "middle" });
    const [left, below] = [x + 6, y + BAR / 2 + 28];
    const turn = `rotate(-38 ${left} ${below})`;
    const name = svg("text", { x: left, y: below, "text-anchor": "end", transform: turn }, shortened(node.name, 15));
    return { element: svg("g", {}, title, outline, filled, count, name), filled, count, title, layer, node, y, height };
  }
  if (node.kind === "join") {
    const sign = svg("text", { x, y: y + 4, "text-anchor": "middle" }, SIGNS[node.name] ?? "•");
    return { element: svg("g", {}, title, svg("circle", { class: "join", cx: x, cy: y, r: half }), sign) };
  }
  const word = svg("text", { x, y: y + BAR / 2 + 14, "text-anchor": "middle" }, node.kind);
  return { element: svg("g", {}, title, svg("circle", { class: "end", cx: x, cy: y, r: half }), word) };
}

/** Draw the graph; returns a function that fills the bars for given widths of the groups. */
function drawNetwork(survey) {
  const layers = new Map(survey.layers.map((layer) => [layer.name, layer]));
  const full = (name) => survey.plan.full_widths[name];
  const widest = Math.max(...Object.values(survey.plan.full_widths));
  const heightOf = (width) => Math.max(3, BAR * Math.sqrt(width / widest));
  const places = placed(survey.nodes);
  const lanes = places.map((place) => place.lane);
  const above = 150 + -Math.min(...lanes) * LANE;
  const spots = places.map(({ column, lane }, number) => {
    const node = survey.nodes[number];
    const isLayer = node.kind === "layer";
    const [half, height] = isLayer ? [14, heightOf(full(node.name))] : node.kind === "join" ? [10, 20] : [5, 10];
    const y = above + lane * LANE;
    return { column, lane, x: 50 + column * STEP, y, half, height, top: y - height / 2 };
  });
  const edges = survey.nodes.flatMap((node, number) => node.sources.map((source) => edge(spots[source], spots[number])));
  const glyphs = survey.nodes.map((node, number) => glyph(node, spots[number], layers.get(node.name)));
  const elements = [...edges, ...glyphs.map((found) => found.element)];
  const drawing = svg("svg", { role: "img", "aria-label": "Graph of the network; the table below has the same content" }, ...elements);
  const holder = document.getElementById("network-plot");
  holder.replaceChildren(drawing);
  const box = drawing.getBBox();
  const [width, height] = [box.width + 24, box.height + 16];
  drawing.setAttribute("viewBox", `${box.x - 12} ${box.y - 8} ${width} ${height}`);
  drawing.style.cssText = `display:block;width:100%;min-width:${Math.round(width * 0.85)}px;max-height:${Math.round(height * 1.25)}px`;
  return (widths) => {
    for (const found of glyphs.filter((each) => each.filled)) {
      const kept = sizeOf(found.layer.width, widths);
      const height = heightOf(kept);
      found.filled.setAttribute("y", found.y - height / 2);
      found.filled.setAttribute("height", height);
      found.count.textContent = kept;
      found.title.textContent = `${found.node.name}: ${kept} of ${full(found.node.name)} neurons`;
    }
  };
}
