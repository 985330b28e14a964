// Numbers with their units, formatted as in the static parts of the page (_html.py).

function scaled(value, base, units) {
  if (value < base) return `${value.toFixed(0)} ${units[0]}`;
  let power = 0;
  for (; value >= base && power < units.length - 1; power += 1) value /= base;
  return `${value.toFixed(digits(value))} ${units[power]}`;
}

function digits(value) {
  return value < 10 ? 2 : value < 100 ? 1 : 0;
}

/** A cost with a suitable unit. */
function amount(resource, value) {
  if (resource.endsWith("seconds")) {
    return value >= 1 ? `${value.toFixed(digits(value))} s` : `${(1e3 * value).toFixed(digits(1e3 * value))} ms`;
  }
  return resource.endsWith("bytes")
    ? scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"])
    : scaled(value, 1000, ["", "k", "M", "G", "T"]).trim();
}

/** A part of a whole in percent. */
function share(part, whole) {
  const percent = whole ? (100 * part) / whole : 100;
  return `${percent.toFixed(percent >= 10 ? 0 : percent >= 1 ? 1 : 2)}%`;
}

/** How many times smaller. */
function times(full, kept) {
  const factor = kept ? full / kept : Infinity;
  return factor < 1e9 ? `${factor.toFixed(factor >= 20 ? 0 : 1)}×` : "∞";
}

/** The end of a long name. */
function shortened(name, length = 16) {
  return name.length > length ? `…${name.slice(1 - length)}` : name;
}
