// The plan file of any step, computed from the widths of the groups; it equals the one that ranp writes.

/** A size as a function of the groups' widths. */
function sizeOf(form, widths) {
  return form.groups.reduce((sum, [group, factor]) => sum + factor * widths[group], form.constant);
}

/** Indices from runs: "4-6,0-1" is 4, 5, 6, 0, 1. */
function indicesOf(runs) {
  return runs.split(",").flatMap((run) => {
    const [first, last = first] = run.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, place) => first + place);
  });
}

/** Ascending indices as runs. */
function runsOf(indices) {
  const runs = [];
  for (const index of indices) {
    const last = runs[runs.length - 1];
    if (last && last[1] === index - 1) last[1] = index;
    else runs.push([index, index]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

/** The kept indices of every parameter and buffer that loses channels. */
function slicesOf(survey, removed) {
  const found = new Map();
  survey.groups.forEach((group, number) => {
    if (!removed[number].length) return;
    for (const member of group.members) {
      const place = JSON.stringify([member.tensor, member.dim]);
      const size = survey.plan.shapes[member.tensor][member.dim];
      if (!found.has(place)) found.set(place, { member, reads: false, kept: Array(size).fill(true) });
      const slice = found.get(place);
      const positions = indicesOf(member.positions);
      const each = positions.length / group.width;
      for (const channel of removed[number]) {
        for (const position of positions.slice(channel * each, (channel + 1) * each)) slice.kept[position] = false;
      }
      slice.reads ||= member.reads;
    }
  });
  return [...found.values()].map(({ member, reads, kept }) => ({
    tensor: member.tensor,
    dim: member.dim,
    size: kept.length,
    keep: runsOf([...kept.keys()].filter((index) => kept[index])),
    reads,
  }));
}

/** Parts of parameters to multiply by a factor, because an operator uses a number that depends on a size. */
function rescaleOf(survey, widths) {
  const full = survey.groups.map((group) => group.width);
  return (survey.rescales ?? [])
    .map(({ tensor, dim, positions, axis, exponent }) => {
      const ratio = sizeOf(survey.axes[axis], widths) / sizeOf(survey.axes[axis], full);
      return { tensor, dim, at: positions, factor: ratio ** exponent };
    })
    .filter(({ factor }) => factor !== 1);
}

/** The plan file of a step. */
function planAt(survey, index) {
  const { widths, cost, budget } = survey.steps[index];
  const orders = survey.groups.map((group) => indicesOf(group.order));
  const kept = orders.map((order, number) => order.slice(0, widths[number]).sort((a, b) => a - b));
  const removed = orders.map((order, number) => order.slice(widths[number]));
  return {
    ...survey.plan,
    keep: Object.fromEntries(survey.groups.map((group, number) => [group.name, runsOf(kept[number])])),
    slices: slicesOf(survey, removed),
    settings: survey.settings.map(({ module, name, axis }) => ({
      module,
      name,
      value: sizeOf(survey.axes[axis], widths),
    })),
    rescale: rescaleOf(survey, widths),
    widths: Object.fromEntries(survey.layers.map((layer) => [layer.name, sizeOf(layer.width, widths)])),
    cost,
    budget,
  };
}

/** Bytes that each operator of a forward pass allocates at a step. */
function bytesAt(survey, index) {
  const sizes = survey.axes.map((form) => sizeOf(form, survey.steps[index].widths));
  return survey.allocations.map(({ factor, axes }) => axes.reduce((product, axis) => product * sizes[axis], factor));
}
