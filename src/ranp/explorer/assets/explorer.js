// The budget explorer: a slider over precomputed plans.

// What a plan is described by, as far as it is known: what training takes, then the multiply-adds.
const LEADING = ["step_seconds", "train_bytes", "macs"];

/** Fill the body of a table; the first cell of each row is its header. */
function fillTable(id, rows) {
  const lines = rows.map(([first, ...rest]) => {
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = first;
    const cells = rest.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    line.append(name, ...cells);
    return line;
  });
  document.getElementById(id).tBodies[0].replaceChildren(...lines);
}

class Explorer {
  constructor(survey) {
    this.survey = survey;
    this.full = survey.plan.full_cost;
    this.slider = document.getElementById("step");
    this.fillNetwork = drawNetwork(survey);
    this.listen();
    this.show(survey.chosen);
    keepDrawn(() => this.draw());
    keepDrawn(() => survey.stages.length && drawImportance(survey));
  }

  listen() {
    const { chosen, steps } = this.survey;
    const place = steps.length > 1 ? chosen / (steps.length - 1) : 0.5;
    // The slider's thumb is half its width away from either end.
    document.getElementById("mark").style.left = `clamp(1.5rem, calc(8px + ${place} * (100% - 16px)), 100% - 1.5rem)`;
    this.slider.addEventListener("input", () => {
      this.show(Number(this.slider.value));
      this.draw();
    });
    document.getElementById("back").addEventListener("click", () => {
      this.slider.value = chosen;
      this.slider.dispatchEvent(new Event("input"));
      this.slider.focus();
    });
    document.getElementById("download").addEventListener("click", () => this.download());
  }

  /** Update all numbers and tables to a step. */
  show(index) {
    this.index = index;
    const { cost, widths } = this.survey.steps[index];
    const isChosen = index === this.survey.chosen;
    const known = LEADING.filter((name) => name in RESOURCES);
    const part = known.map((name) => `${share(cost[name], this.full[name])} of the ${RESOURCES[name]}`).join(", ");
    this.slider.setAttribute("aria-valuetext", isChosen ? `${part}, the chosen plan` : part);
    document.getElementById("where").textContent = isChosen ? `${part}: the chosen plan` : part;
    for (const name of Object.keys(RESOURCES)) this.showCard(name, cost[name], this.full[name]);
    this.showSeconds();
    this.fillNetwork(widths);
    this.fillTables();
    this.announce(part, cost);
  }

  showCard(name, value, full) {
    const card = document.getElementById(`at-${name}`);
    card.dataset.value = value;
    card.querySelector(".big").textContent = amount(name, value);
    const less = `, ${times(full, value)} ${/(bytes|seconds)$/.test(name) ? "less" : "fewer"}`;
    const part = `${share(value, full)} of ${amount(name, full)}`;
    card.querySelector(".small").textContent = value === full ? part : part + less;
    card.querySelector(".bar > span").style.width = `${(100 * value) / (full || 1)}%`;
  }

  /** The time measured at the step, or at the nearest measured steps on both sides of it. */
  showSeconds() {
    const card = document.getElementById("at-seconds");
    if (!card) return;
    const seconds = this.survey.steps.map((step) => step.forward_seconds);
    const measured = [...seconds.keys()].filter((step) => seconds[step]);
    const below = measured.findLast((step) => step <= this.index);
    const above = measured.find((step) => step >= this.index);
    const found = [...new Set([below, above])].filter((step) => step !== undefined).map((step) => 1e3 * seconds[step]);
    const full = seconds[seconds.length - 1];
    card.dataset.value = seconds[this.index] ?? "";
    card.querySelector(".big").textContent = `${found.map((value) => value.toFixed(1)).join(" to ")} ms`;
        const part = full ? `${share(found[0] / 1e3, full)} of the full network's time` : "";
    card.querySelector(".small").textContent = below === above ? part : `measured at the nearest ${found.length === 2 ? "two steps" : "step"}`;
  }

  /** The text that a screen reader reads once the slider has stopped. */
  announce(part, cost) {
    clearTimeout(this.announcing);
    const costs = Object.entries(RESOURCES).map(([name, words]) => `${amount(name, cost[name])} ${words}`);
    this.announcing = setTimeout(() => {
      document.getElementById("announcement").textContent = `${part}: ${costs.join(", ")}.`;
    }, 400);
  }

  widthsAt(index) {
    const { steps, layers } = this.survey;
    return layers.map((layer) => sizeOf(layer.width, steps[index].widths));
  }

  fillTables() {
    const { survey, index } = this;
    const names = survey.layers.map((layer) => layer.name);
    const [chosen, now] = [survey.chosen, index].map((step) => this.widthsAt(step));
    fillTable("widths-table", names.map((name, at) => [name, survey.plan.full_widths[name], chosen[at], now[at]]));
    const kept = new Map(names.map((name, at) => [name, now[at]]));
    const called = (number) => survey.nodes[number].name || survey.nodes[number].kind;
    const graph = survey.nodes.map((node, number) => [
      called(number),
      node.sources.map(called).join(", ") || "-",
      node.kind === "layer" ? `${kept.get(node.name)} of ${survey.plan.full_widths[node.name]}` : "-",
    ]);
    fillTable("network-table", graph);
    const bytes = this.bytes();
    const memory = survey.allocations.map(({ path, operator }, at) => [
      `${path || "model"}, ${operator}`,
      ...[bytes.full, bytes.chosen, bytes.now].map((values) => amount("activation_bytes", values[at])),
    ]);
    fillTable("memory-table", memory);
  }

  bytes() {
    const { survey, index } = this;
    const whole = { ...survey, steps: [{ widths: survey.groups.map((group) => group.width) }] };
    return { full: bytesAt(whole, 0), chosen: bytesAt(survey, survey.chosen), now: bytesAt(survey, index) };
  }

  draw() {
    this.drawWidths();
    this.drawCosts();
    this.drawMemory();
  }

  drawWidths() {
    const { survey, index } = this;
    const names = survey.layers.map((layer) => layer.name);
    const full = names.map((name) => survey.plan.full_widths[name]);
    const x = names.map((_, place) => place);
    const percent = (widths) => widths.map((width, at) => (100 * width) / full[at]);
    const now = this.widthsAt(index);
    const texts = names.map((name, at) => `${plain(name)}: ${now[at]} of ${full[at]}`);
    const bar = { type: "bar", x, hoverinfo: "skip", showlegend: false };
    const traces = [
      { ...bar, y: x.map(() => 100), marker: { color: themeColor("--soft") } },
      {
        ...bar,
        y: percent(now),
        name: "at the slider",
        showlegend: true,
        marker: { color: themeColor("--kept") },
        text: names.length > 20 ? undefined : now.map(String),
        textposition: "outside",
        textangle: 0,
        cliponaxis: false,
        hovertext: texts,
        hoverinfo: "text",
      },
      {
        type: "scatter",
        mode: "markers",
        x,
        y: percent(this.widthsAt(survey.chosen)),
        name: "chosen plan",
        marker: { symbol: "line-ew-open", size: Math.max(6, 260 / names.length), color: themeColor("--chosen"), line: { width: 2 } },
        hoverinfo: "skip",
      },
    ];
    const yaxis = axis({ range: [0, 112], title: "neurons kept (%)", tickvals: [0, 25, 50, 75, 100] });
    draw("widths-plot", traces, { barmode: "overlay", bargap: 0.25, xaxis: named("widths-plot", names), yaxis, height: 380 });
  }

  drawCosts() {
    const { survey, full, index } = this;
    const part = (step, name) => (100 * step.cost[name]) / (full[name] || 1);
    const x = survey.steps.map((step) => part(step, "macs"));
    const others = Object.keys(RESOURCES).filter((name) => name !== "macs");
    const traces = others.map((name, number) => ({
      type: "scatter",
      mode: "lines+markers",
      name: RESOURCES[name],
      x,
      y: survey.steps.map((step) => part(step, name)),
      line: { color: themeColor(SERIES[(number + (number > 0)) % SERIES.length]), width: 2 },
      marker: { size: survey.steps.map((_, at) => (at === index ? 10 : survey.steps.length > 1 ? 0.1 : 8)) },
      hovertemplate: `%{x:.3g}% of the multiply-adds: %{y:.3g}% of the ${RESOURCES[name]}<extra></extra>`,
    }));
    traces.push(...this.secondsTrace(x));
    const line = (step, dash, name) => ({
      type: "line",
      xref: "x",
      yref: "paper",
      x0: x[step],
      x1: x[step],
      y0: 0,
      y1: 1,
      line: { color: themeColor(name), width: 2, dash },
    });
    const shapes = [line(survey.chosen, "solid", "--chosen"), line(index, "dash", "--ink")];
    const scale = { type: "log", tickvals: [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100] };
    const xaxis = axis({ ...scale, title: "multiply-adds kept (%)" });
    const chosen = { x: Math.log10(x[survey.chosen]), y: 0.02, yref: "paper", yanchor: "bottom", xanchor: "left" };
    const annotations = [{ ...chosen, text: "chosen", showarrow: false, font: { color: themeColor("--chosen") } }];
    draw("costs-plot", traces, { shapes, annotations, xaxis, yaxis: axis({ ...scale, title: "kept (%)" }), height: 380 });
  }

  /** Measured time as a share of that of the full network, where both were measured. */
  secondsTrace(x) {
    const seconds = this.survey.steps.map((step) => step.forward_seconds);
    const full = seconds[seconds.length - 1];
    const measured = [...seconds.keys()].filter((step) => seconds[step]);
    if (!full || measured.length < 2) return [];
    return [
      {
        type: "scatter",
        mode: "lines+markers",
        name: "forward pass, measured",
        x: measured.map((step) => x[step]),
        y: measured.map((step) => (100 * seconds[step]) / full),
        line: { color: themeColor("--fifth"), width: 1.5, dash: "dot" },
        marker: { size: 6 },
        hovertemplate: "%{x:.3g}% of the multiply-adds: %{y:.3g}% of the measured time<extra></extra>",
      },
    ];
  }

  drawMemory() {
    const { survey } = this;
    const bytes = this.bytes();
    const x = survey.allocations.map((_, place) => place + 1);
    const mib = (values) => values.map((value) => value / 2 ** 20);
    const texts = survey.allocations.map(
      ({ path, operator }, at) =>
        `${plain(path || "model")}, ${plain(operator)}<br>full ${amount("activation_bytes", bytes.full[at])}, ` +
        `at the slider ${amount("activation_bytes", bytes.now[at])}`,
    );
    const bar = { type: "bar", x, hoverinfo: "skip" };
    const traces = [
      { ...bar, y: mib(bytes.full), name: "full", marker: { color: themeColor("--full") }, hovertext: texts, hoverinfo: "text" },
      { ...bar, y: mib(bytes.now), name: "at the slider", marker: { color: themeColor("--kept") } },
      {
        type: "scatter",
        mode: "lines",
        x,
        y: mib(bytes.chosen),
        name: "chosen plan",
        line: { shape: "hvh", color: themeColor("--chosen"), width: 1.5 },
        hoverinfo: "skip",
      },
    ];
    const xaxis = axis({ title: "operators of the forward pass, in order" });
    draw("memory-plot", traces, { barmode: "overlay", bargap: 0.1, xaxis, yaxis: axis({ title: "MiB" }), hovermode: "x" });
  }

  download() {
    const content = `${JSON.stringify(planAt(this.survey, this.index), null, 1)}\n`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    link.download = "plan.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
