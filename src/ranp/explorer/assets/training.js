// Validation curves of the runs: one metric against steps and against time.

function drawTraining(runs) {
  const metric = document.getElementById("metric");
  const redraw = () => {
    for (const [key, title] of [["step", "training steps"], ["seconds", "training time (s)"]]) {
      const traces = runs
        .filter((run) => run.curve.length)
        .map((run, number) => ({
          type: "scatter",
          mode: "lines+markers",
          name: plain(run.name),
          x: run.curve.map((row) => row[key]),
          y: run.curve.map((row) => row[metric.value] ?? null),
          line: { color: themeColor(SERIES[number % SERIES.length]), width: 2 },
          marker: { size: 5 },
        }));
      const id = key === "step" ? "steps-plot" : "seconds-plot";
      const axes = { xaxis: axis({ title, rangemode: "tozero" }), yaxis: axis({ title: plain(metric.value) }) };
      draw(id, traces, { ...axes, showlegend: true });
    }
  };
  metric.addEventListener("change", redraw);
  keepDrawn(redraw);
}
