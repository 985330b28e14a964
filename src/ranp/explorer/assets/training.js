// Curves of the runs: one figure against steps and against time.

function drawTraining(runs) {
  const chosen = document.getElementById("figure");
  const redraw = () => {
    for (const [key, title] of [["step", "training steps"], ["seconds", "training time (s)"]]) {
      const traces = runs
        .filter((run) => run.curve.length)
        .map((run, number) => ({
          type: "scatter",
          mode: "lines+markers",
          name: plain(run.name),
          x: run.curve.map((row) => row[key]),
          y: run.curve.map((row) => row[chosen.value] ?? null),
          line: { color: colour(SERIES[number % SERIES.length]), width: 2 },
          marker: { size: 5 },
        }));
      const id = key === "step" ? "steps-picture" : "seconds-picture";
      const axes = { xaxis: axis({ title, rangemode: "tozero" }), yaxis: axis({ title: plain(chosen.value) }) };
      draw(id, traces, { ...axes, showlegend: true });
    }
  };
  chosen.addEventListener("change", redraw);
  keepDrawn(redraw);
}
