// One dashboard's page: its range, variables and panels. What is shown comes from the server as columns; here it is named, coloured, formatted and drawn.
// No framework and no build step: this file is served as it is.
"use strict";

// ---- small tools

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") made.style.cssText = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* a browser that keeps nothing */ }
  return null;
}

// ---- light and dark

const THEMES = { system: ["◐", "Theme: as the system"], light: ["☀", "Theme: light"], dark: ["☾", "Theme: dark"] };

function theme() {
  const wanted = stored("theme");
  return THEMES[wanted] ? wanted : "system";
}

function applyTheme() {
  const wanted = theme();
  if (wanted === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  const button = $("#theme");
  if (!button) return;
  button.textContent = THEMES[wanted][0];
  button.setAttribute("aria-label", THEMES[wanted][1]);
}

applyTheme();

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => style("--is-dark") === "1";

// ---- colours

const HUES = { red: "#d8434e", orange: "#e0852b", yellow: "#d6ae12", green: "#3d9e63", blue: "#3b82cc", purple: "#8c63cb" };
const SHADES = { "super-light-": ["#ffffff", 0.6], "light-": ["#ffffff", 0.3], "semi-dark-": ["#000000", 0.15], "dark-": ["#000000", 0.32] };
const PALETTE = ["#3b82cc", "#e0852b", "#3d9e63", "#b0569f", "#d6ae12", "#2aa3a3", "#d8434e", "#8c63cb", "#7f9a2f", "#c06a42", "#6f8fae", "#d9789c"];
const SCALES = {
  "continuous-GrYlRd": [HUES.green, HUES.yellow, HUES.red], "continuous-RdYlGr": [HUES.red, HUES.yellow, HUES.green],
  "continuous-BlYlRd": [HUES.blue, HUES.yellow, HUES.red], "continuous-YlRd": [HUES.yellow, HUES.red], "continuous-BlPu": [HUES.blue, HUES.purple],
  "continuous-YlBl": [HUES.yellow, HUES.blue], "continuous-blues": ["@panel", HUES.blue], "continuous-reds": ["@panel", HUES.red],
  "continuous-greens": ["@panel", HUES.green], "continuous-purples": ["@panel", HUES.purple],
};

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const hexOf = (rgb) => "#" + rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
const mixed = (one, other, share) => hexOf(channels(one).map((part, at) => part + (channels(other)[at] - part) * share));

// A colour as Grafana names it, or as CSS does.
function colour(name) {
  if (!name) return style("--text");
  if (name === "transparent") return "transparent";
  if (name === "text") return style("--text");
  if (name === "@panel") return style("--panel");
  if (HUES[name]) return HUES[name];
  const shade = Object.keys(SHADES).find((start) => name.startsWith(start) && HUES[name.slice(start.length)]);
  return shade ? mixed(HUES[name.slice(shade.length)], ...SHADES[shade]) : name;
}

function scaled(stops, share) {
  const colours = stops.map(colour);
  const at = Math.min(Math.max(share, 0), 1) * (colours.length - 1);
  const below = Math.min(Math.floor(at), colours.length - 2);
  return mixed(colours[below], colours[below + 1], at - below);
}

function hashed(text) {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return hash;
}

function thresholdColour(config, value, low, high) {
  const { mode, steps } = config.thresholds ?? {};
  const range = (config.max ?? high) - (config.min ?? low);
  const measured = mode === "percentage" && range ? (100 * (value - (config.min ?? low))) / range : value;
  const reached = (steps ?? []).filter((step, at) => at === 0 || step.value === null || measured >= step.value);
  return colour(reached.at(-1)?.color ?? "green");
}

// The colour of one value: of a mapping, of thresholds, on a scale, or its field's own.
function valueColour(field, value) {
  const mapping = mapped(field.config, value);
  if (mapping?.color) return colour(mapping.color);
  const mode = field.config.color?.mode ?? "thresholds";
  if (mode === "thresholds") return isNumber(value) ? thresholdColour(field.config, value, field.low, field.high) : null;
  if (SCALES[mode] && isNumber(value)) {
    const low = field.config.min ?? field.low, high = field.config.max ?? field.high;
    return scaled(SCALES[mode], high > low ? (value - low) / (high - low) : 1);
  }
  return field.colour;
}

// Gives each field its colour, so that within a panel none has another's by accident.
function colourFields(fields) {
  const taken = new Set();
  fields.forEach((field, at) => {
    const { mode, fixedColor } = field.config.color ?? {};
    if (mode === "fixed") field.colour = colour(fixedColor);
    else if (mode === "palette-classic-by-name") {
      let slot = hashed(field.name) % PALETTE.length;
      while (taken.has(slot) && taken.size < PALETTE.length) slot = (slot + 1) % PALETTE.length;
      taken.add(slot);
      field.colour = PALETTE[slot];
    } else if (mode === "thresholds" && fields.length === 1) field.colour = thresholdColour(field.config, field.values.findLast(isNumber) ?? 0, field.low, field.high);
    else field.colour = PALETTE[at % PALETTE.length];
  });
}

// ---- units

const SI = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const SHORT = [[1e12, " Tri"], [1e9, " Bil"], [1e6, " Mil"], [1e3, " K"], [1, ""]];
const COUNT = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"], [1, ""]];
const TIMES = [[31536e3, " y"], [604800, " wk"], [86400, " d"], [3600, " h"], [60, " min"], [1, " s"], [1e-3, " ms"], [1e-6, " µs"], [1e-9, " ns"]];
const BINARY = [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"], [1, " B"]];
const PER_SECOND = { reqps: " req/s", ops: " ops/s", cps: " c/s", rps: " rd/s", wps: " wr/s", iops: " io/s", eps: " ev/s", mps: " msg/s", recps: " rec/s", rowsps: " rows/s" };
const PER_MINUTE = { opm: " ops/min", cpm: " c/min", reqpm: " req/min", rpm: " rd/min", epm: " ev/min" };
const SECONDS = { ns: 1e-9, "µs": 1e-6, us: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600, d: 86400 };

function digits(value, decimals) {
  if (decimals !== undefined && decimals !== null) return value.toFixed(decimals);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 6;
  return String(Number(value.toFixed(places)));
}

function stepped(value, steps, decimals, after = "") {
  const size = Math.abs(value);
  const [unit, name] = steps.find(([least]) => size >= least) ?? steps.at(size ? -1 : steps.findIndex(([least]) => least === 1));
  return digits(value / unit, decimals) + name + after;
}

const pad = (number) => String(number).padStart(2, "0");

function dateText(millis, withMillis = false) {
  const at = new Date(millis);
  if (Number.isNaN(at.getTime())) return "";
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${day} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}${withMillis ? "." + String(at.getMilliseconds()).padStart(3, "0") : ""}`;
}

function fromNow(millis) {
  const seconds = (millis - Date.now()) / 1000;
  const [unit, name] = [[31536e3, "year"], [2592e3, "month"], [86400, "day"], [3600, "hour"], [60, "minute"]].find(([least]) => Math.abs(seconds) >= least) ?? [1, "second"];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(Math.round(seconds / unit), name);
}

// A number in one of Grafana's units; what is not known stands behind the number as it is.
function inUnit(value, unit, decimals) {
  if (SECONDS[unit]) return stepped(value * SECONDS[unit], TIMES, decimals);
  if (PER_SECOND[unit]) return stepped(value, COUNT, decimals, PER_SECOND[unit]);
  if (PER_MINUTE[unit]) return stepped(value, COUNT, decimals, PER_MINUTE[unit]);
  switch (unit) {
    case undefined: case "": case "none": case "string": return digits(value, decimals);
    case "short": return stepped(value, SHORT, decimals);
    case "locale": return value.toLocaleString();
    case "percent": return digits(value, decimals ?? (Math.abs(value) < 10 ? undefined : 1)) + "%";
    case "percentunit": return digits(100 * value, decimals ?? (Math.abs(value) < 0.1 ? undefined : 1)) + "%";
    case "bytes": return stepped(value, BINARY, decimals);
    case "decbytes": return stepped(value, SI, decimals, "B").replace(/(\d)([kMGT]?B)$/, "$1 $2");
    case "kbytes": return stepped(value * 1024, BINARY, decimals);
    case "mbytes": return stepped(value * 2 ** 20, BINARY, decimals);
    case "binBps": return stepped(value, BINARY, decimals, "/s");
    case "Bps": return stepped(value, SI, decimals, "B/s").replace(/(\d)([kMGT]?B\/s)$/, "$1 $2");
    case "bps": return stepped(value, SI, decimals, "b/s").replace(/(\d)([kMGT]?b\/s)$/, "$1 $2");
    case "dtdurations": return stepped(value, TIMES, decimals);
    case "dtdurationms": return stepped(value / 1000, TIMES, decimals);
    case "dateTimeAsIso": case "dateTimeAsSystem": case "dateTimeAsLocal": return dateText(value);
    case "dateTimeFromNow": return fromNow(value);
    case "bool": return value ? "True" : "False";
    case "bool_yes_no": return value ? "Yes" : "No";
  }
  const [kind, rest] = [unit.split(":")[0], unit.slice(unit.indexOf(":") + 1)];
  if (kind === "suffix") return digits(value, decimals) + rest;
  if (kind === "prefix") return rest + digits(value, decimals);
  if (kind === "si") return stepped(value, SI, decimals, rest);
  if (kind === "time") return dateText(value);
  return `${digits(value, decimals)} ${unit}`;
}

// What a value is mapped to: a text, a colour, or both.
function mapped(config, value) {
  for (const { type, options } of config.mappings ?? []) {
    if (type === "value" && options[String(value)]) return options[String(value)];
    if (type === "range" && isNumber(value) && value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity)) return options.result;
    if (type === "regex" && typeof value === "string") {
      try { if (new RegExp(options.pattern).test(value)) return options.result; } catch { /* not one that this browser knows */ }
    }
    if (type === "special") {
      const empty = value === null || value === undefined;
      const holds = { null: empty, "null+nan": empty, empty: value === "", true: value === true, false: value === false, nan: false };
      if (holds[options.match]) return options.result;
    }
  }
  return null;
}

function text(field, value) {
  const mapping = mapped(field.config, value);
  if (mapping?.text) return mapping.text;
  if (value === null || value === undefined) return field.config.noValue ?? "";
  if (field.kind === "time") return field.config.unit ? inUnit(value, field.config.unit, field.config.decimals) : dateText(value);
  if (isNumber(value)) return inUnit(value, field.config.unit, field.config.decimals);
  return String(value);
}

// ---- fields: columns with the configuration that is meant for them

function labelled(column, all) {
  const labels = Object.entries(column.labels ?? {});
  if (!labels.length) return column.name;
  const names = new Set(all.flatMap((other) => Object.keys(other.labels ?? {})));
  const shown = names.size === 1 ? labels[0][1] : `{${labels.map(([name, value]) => `${name}="${value}"`).join(", ")}}`;
  return column.name === "Value" ? shown : `${column.name} ${shown}`;
}

function named(config, column, all) {
  const own = labelled(column, all);
  if (!config.displayName) return own;
  const filled = config.displayName
    .replace(/\$\{__field\.labels\.([^}]+)\}|\$\{__field\.labels\["([^"]+)"\]\}/g, (_, a, b) => column.labels?.[a ?? b] ?? "")
    .replace(/\$\{__field\.labels\}/g, Object.values(column.labels ?? {}).join(", "))
    .replace(/\$\{__(field\.(name|displayName)|series\.name)\}/g, own);
  return filled || own;
}

function isMeant(matcher, name, column, refId) {
  switch (matcher?.id) {
    case "byName": return matcher.options === name || matcher.options === column.name;
    case "byNames": return (matcher.options?.names ?? []).includes(name);
    case "byRegexp": {
      const written = /^\/(.*)\/([a-z]*)$/.exec(matcher.options);
      try { return new RegExp(written ? written[1] : `^${matcher.options}$`, written?.[2]).test(name); } catch { return false; }
    }
    case "byType": return matcher.options === column.kind;
    case "byFrameRefID": return matcher.options === refId;
    default: return false;
  }
}

function put(config, path, value) {
  const parts = path.split(".");
  let at = config;
  for (const part of parts.slice(0, -1)) at = at[part] = { ...(at[part] ?? {}) };
  at[parts.at(-1)] = value;
}

function fieldsOf(panel, frames) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const all = frames.flatMap((frame) => frame.columns);
  return frames.flatMap((frame, at) => frame.columns.map((column) => {
    const config = structuredClone(defaults);
    const first = named(config, column, all);
    for (const override of overrides) {
      if (!isMeant(override.matcher, first, column, frame.refId)) continue;
      for (const { id, value } of override.properties ?? []) put(config, id, value);
    }
    const numbers = column.values.filter(isNumber);
    const low = numbers.reduce((least, value) => Math.min(least, value), Infinity), high = numbers.reduce((most, value) => Math.max(most, value), -Infinity);
    return { ...column, source: column.name, name: named(config, column, all), config, frame: at, low: Number.isFinite(low) ? low : 0, high: Number.isFinite(high) ? high : 0 };
  }));
}

const numbersOf = (fields) => fields.filter((field) => field.kind === "number" && !field.config.custom?.hideFrom?.viz);

// ---- reducing many values to one

const CALCS = {
  lastNotNull: (values) => values.findLast((value) => value !== null) ?? null,
  last: (values) => values.at(-1) ?? null,
  firstNotNull: (values) => values.find((value) => value !== null) ?? null,
  first: (values) => values[0] ?? null,
  sum: (values) => values.filter(isNumber).reduce((sum, value) => sum + value, 0),
  mean: (values) => { const known = values.filter(isNumber); return known.length ? CALCS.sum(known) / known.length : null; },
  min: (values) => { const known = values.filter(isNumber); return known.length ? Math.min(...known) : null; },
  max: (values) => { const known = values.filter(isNumber); return known.length ? Math.max(...known) : null; },
  count: (values) => values.length,
  range: (values) => CALCS.max(values) - CALCS.min(values),
  diff: (values) => CALCS.lastNotNull(values) - CALCS.firstNotNull(values),
  delta: (values) => CALCS.lastNotNull(values) - CALCS.firstNotNull(values),
  median: (values) => { const known = values.filter(isNumber).sort((a, b) => a - b); return known.length ? (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2 : null; },
};

function isWanted(field, wanted) {
  if (!wanted) return field.kind === "number";
  const written = /^\/(.*)\/([a-z]*)$/.exec(wanted);
  try { return written ? new RegExp(written[1], written[2]).test(field.name) : field.name === wanted; } catch { return false; }
}

// One entry for each value that is shown: of a field, or of a row where all rows are.
function reduced(panel, fields) {
  const { calcs = ["lastNotNull"], fields: wanted = "", values: all = false, limit = 1000 } = panel.options?.reduceOptions ?? {};
  const calc = CALCS[calcs[0]] ?? CALCS.lastNotNull;
  const times = fields.find((field) => field.kind === "time")?.values;
  const shown = fields.filter((field) => isWanted(field, wanted));
  if (!all) return shown.map((field) => ({ field, name: field.name, value: calc(field.values), values: field.values, times }));
  const words = fields.find((field) => field.kind === "string" && !shown.includes(field));
  const rows = Math.min(shown[0]?.values.length ?? 0, limit);
  const entry = (field, row) => ({
    field: { ...field, colour: shown.length > 1 ? field.colour : PALETTE[row % PALETTE.length] }, row, value: field.values[row], values: [],
    name: words ? (shown.length > 1 ? `${text(words, words.values[row])} ${field.name}` : text(words, words.values[row])) : field.name,
  });
  return Array.from({ length: rows }, (_, row) => shown.map((field) => entry(field, row))).flat();
}

// ---- links

function linkTarget(url) {
  return /^(https?:\/\/|\/(?!\/)|\?|#)/i.test(url) ? url : "#";
}

// Variables and what is meant by a value, in a link's address.
function filled(address, scope = {}) {
  const encode = (value, format) => (format === "percentencode" || format === "uricomponentencode" ? encodeURIComponent(value) : value);
  const special = (name, format) => {
    const field = /^__data\.fields(?:\.(.+)|\[["']?([^"'\]]+)["']?\])$/.exec(name);
    if (field) return scope.row === undefined ? "" : encode(scope.cell(field[1] ?? field[2]), format);
    if (name === "__value.raw" || name === "__value.numeric") return encode(String(scope.value ?? ""), format);
    if (name === "__value.text" || name === "__value") return encode(scope.text ?? "", format);
    if (name === "__field.name" || name === "__series.name") return encode(scope.name ?? "", format);
    if (name === "__url_time_range") return `from=${encodeURIComponent(state.from)}&to=${encodeURIComponent(state.to)}`;
    if (name === "__all_variables") return state.parameters;
    if (name === "__from" || name === "__to") return String(state.range[name.slice(2)]);
    const variable = state.variables.find((known) => known.name === name);
    if (!variable) return null;
    if (format === "queryparam") return variable.selected.map((value) => `var-${name}=${encodeURIComponent(value)}`).join("&");
    return encode(variable.selected.join(","), format === undefined ? "percentencode" : format);
  };
  const replaced = address.replace(/\$\{([^}:]+)(?::([^}]+))?\}|\$(\w+)/g, (whole, name, format, plain) => special(name ?? plain, format) ?? whole);
  return linkTarget(replaced);
}

function linked(node, field, scope) {
  const link = field.config.links?.[0];
  if (!link) return node;
  return element("a", { href: filled(link.url, scope), title: link.title || null, target: link.targetBlank ? "_blank" : null, rel: link.targetBlank ? "noopener" : null }, node);
}

// ---- drawing: each type takes the panel's body, what it is, and its fields; false: there is nothing to draw

const charts = new Map();

function chart(body, option) {
  const box = element("div", { class: "chart" });
  body.replaceChildren(box);
  const drawn = echarts.init(box, isDark() ? "dark" : null, { renderer: "svg" });
  const font = { fontFamily: style("--font"), color: style("--text") };
  drawn.setOption({ animation: false, backgroundColor: "transparent", aria: { enabled: true }, textStyle: font, ...option });
  charts.set(body, drawn);
  return true;
}

const axisStyle = () => ({ axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: style("--soft"), hideOverlap: true }, splitLine: { lineStyle: { color: style("--line") } } });

function legend(panel, names, width) {
  const { showLegend = true, placement = "bottom", displayMode } = panel.options?.legend ?? {};
  if (!showLegend || displayMode === "hidden" || !names.length) return { legend: { show: false }, bottom: 8, right: 14 };
  const common = { type: "scroll", data: names, textStyle: { color: style("--text"), width: 150, overflow: "truncate" }, icon: "roundRect", itemWidth: 12, itemHeight: 8, pageIconColor: style("--text"), pageTextStyle: { color: style("--soft") } };
  if (placement === "right" && width > 420) return { legend: { ...common, orient: "vertical", right: 4, top: 8 }, bottom: 8, right: 190 };
  return { legend: { ...common, bottom: 0, left: 8, right: 8 }, bottom: 32, right: 14 };
}

function tooltip(trigger, format) {
  return {
    trigger, confine: true, backgroundColor: style("--panel"), borderColor: style("--line"), textStyle: { color: style("--text"), fontSize: 12 },
    axisPointer: { type: "line", lineStyle: { color: style("--soft") } }, formatter: format,
  };
}

const safe = (words) => String(words).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function tooltipRows(head, rows) {
  const line = ({ marker, name, value }) => `<div class="tip"><span>${marker ?? ""}${safe(name)}</span><b>${safe(value)}</b></div>`;
  return `<div class="tiphead">${safe(head)}</div>${rows.map(line).join("")}`;
}

function thresholdLines(field) {
  const mode = field.config.custom?.thresholdsStyle?.mode ?? "off";
  const steps = (field.config.thresholds?.steps ?? []).filter((step) => step.value !== null && step.value !== undefined);
  if (mode === "off" || !mode.match(/line|dashed/) || !steps.length) return undefined;
  return { silent: true, symbol: "none", label: { show: false }, data: steps.map((step) => ({ yAxis: step.value, lineStyle: { color: colour(step.color), type: "dashed" } })) };
}

function valueAxis(field, side) {
  const custom = field.config.custom ?? {};
  const format = (value) => inUnit(value, field.config.unit, Number.isInteger(field.config.decimals) && field.config.unit === "percentunit" ? 0 : undefined);
  return {
    ...axisStyle(), type: custom.scaleDistribution?.type === "log" ? "log" : "value", position: side, min: field.config.min, max: field.config.max, scale: field.config.min === undefined,
    name: custom.axisLabel || undefined, nameTextStyle: { color: style("--soft"), align: side === "right" ? "right" : "left" }, splitNumber: 4,
    axisLabel: { ...axisStyle().axisLabel, formatter: format }, splitLine: side === "right" ? { show: false } : axisStyle().splitLine,
  };
}

// Up to two value axes: one for each unit; fields of further units share the first.
function valueAxes(fields) {
  const units = [...new Set(fields.map((field) => field.config.unit ?? ""))].slice(0, 2);
  const sided = (field) => field.config.custom?.axisPlacement === "right";
  const isRight = (field) => sided(field) || (units.length > 1 && (field.config.unit ?? "") === units[1] && !fields.some(sided));
  const left = fields.filter((field) => !isRight(field)), right = fields.filter(isRight);
  const axes = left.length ? [valueAxis(left[0], "left")] : [];
  if (right.length) axes.push(valueAxis(right[0], left.length ? "right" : "left"));
  return { axes, index: (field) => (isRight(field) && left.length ? 1 : 0) };
}

function line(field, times, index, percents) {
  const custom = field.config.custom ?? {};
  const stacked = custom.stacking?.mode && custom.stacking.mode !== "none";
  const draw = custom.drawStyle ?? "line";
  const single = field.values.filter((value) => value !== null).length === 1;
  const always = custom.showPoints === "always" || draw === "points" || single;
  return {
    name: field.name, type: draw === "bars" ? "bar" : draw === "points" ? "scatter" : "line", yAxisIndex: index, color: field.colour, stack: stacked ? `${custom.stacking.group ?? "A"}${index}` : undefined,
    data: field.values.map((value, at) => [times[at], percents ? percents(value, at) : value]), showSymbol: always, symbol: "circle", symbolSize: custom.pointSize ?? 5, barMaxWidth: 40,
    connectNulls: custom.spanNulls === true || isNumber(custom.spanNulls), step: { stepBefore: "start", stepAfter: "end" }[custom.lineInterpolation], smooth: custom.lineInterpolation === "smooth" ? 0.3 : false,
    lineStyle: { width: custom.lineWidth ?? 1.5, type: custom.lineStyle?.fill === "dash" ? "dashed" : "solid" }, itemStyle: { color: field.colour, opacity: draw === "bars" ? Math.max((custom.fillOpacity ?? 80) / 100, 0.4) : 1 },
    areaStyle: draw === "line" && custom.fillOpacity ? { opacity: custom.fillOpacity / 100 } : undefined, emphasis: { focus: "series" }, markLine: thresholdLines(field), sampling: draw === "line" && !stacked ? "lttb" : undefined,
  };
}

function timeseries(body, panel, fields, answer) {
  const drawn = numbersOf(fields).filter((field) => field.values.some((value) => value !== null));
  const timeOf = (field) => fields.find((other) => other.kind === "time" && other.frame === field.frame);
  if (!drawn.length) return false;
  if (!drawn.every(timeOf)) throw new Error("The query answers no time column, which a time series needs.");
  colourFields(drawn);
  const { axes, index } = valueAxes(drawn);
  const isPercent = (field) => field.config.custom?.stacking?.mode === "percent";
  const share = (field) => (value, at) => {
    const sum = drawn.filter(isPercent).reduce((total, other) => total + (other.values[at] ?? 0), 0);
    return value === null || !sum ? value : value / sum;
  };
  const key = legend(panel, drawn.map((field) => field.name), body.clientWidth);
  const byName = new Map(drawn.map((field) => [field.name, field]));
  const sort = panel.options?.tooltip?.sort;
  const tip = (points) => {
    const rows = points.filter((point) => point.value[1] !== null && point.value[1] !== undefined);
    if (sort === "desc" || sort === "asc") rows.sort((a, b) => (sort === "desc" ? b.value[1] - a.value[1] : a.value[1] - b.value[1]));
    return tooltipRows(dateText(points[0].value[0]), rows.map((point) => ({ marker: point.marker, name: point.seriesName, value: text(byName.get(point.seriesName), point.value[1]) })));
  };
  return chart(body, {
    grid: { left: 8, right: key.right, top: axes.some((axis) => axis.name) ? 28 : 12, bottom: key.bottom, containLabel: true }, legend: key.legend,
    tooltip: panel.options?.tooltip?.mode === "none" ? { show: false } : tooltip("axis", tip),
    xAxis: { ...axisStyle(), type: "time", min: answer.range.from, max: answer.range.to, splitLine: { show: false }, axisLabel: { ...axisStyle().axisLabel, formatter: { hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}", day: "{MM}-{dd}", month: "{yyyy}-{MM}", year: "{yyyy}" } } },
    yAxis: axes, series: drawn.map((field) => line(field, timeOf(field).values, index(field), isPercent(field) ? share(field) : null)),
  });
}

function barchart(body, panel, fields) {
  const options = panel.options ?? {};
  const across = fields.find((field) => field.name === options.xField || field.source === options.xField) ?? fields.find((field) => field.kind === "string") ?? fields.find((field) => field.kind === "time");
  const drawn = numbersOf(fields).filter((field) => field !== across);
  if (!across || !drawn.length || !across.values.length) return false;
  colourFields(drawn);
  const horizontal = options.orientation === "horizontal";
  const names = across.values.map((value) => text(across, value));
  const longest = options.xTickLabelMaxLength || 24;
  const shortened = (name) => (name.length > longest ? name.slice(0, longest - 1) + "…" : name);
  const category = { ...axisStyle(), type: "category", data: names, inverse: horizontal, splitLine: { show: false }, axisLabel: { ...axisStyle().axisLabel, formatter: shortened, rotate: horizontal ? 0 : -(options.xTickLabelRotation ?? 0), hideOverlap: true } };
  const { axes, index } = valueAxes(drawn);
  const values = (horizontal ? axes.slice(0, 1) : axes).map((axis) => (horizontal ? { ...axis, position: "bottom" } : axis));
  const key = legend(panel, drawn.length > 1 || options.legend?.showLegend ? drawn.map((field) => field.name) : [], body.clientWidth);
  const total = (at) => drawn.reduce((sum, field) => sum + (field.values[at] ?? 0), 0);
  const percent = options.stacking === "percent";
  const byThreshold = (field) => field.config.color?.mode === "thresholds" || SCALES[field.config.color?.mode];
  const room = (horizontal ? body.clientHeight : body.clientWidth) / Math.max(names.length * drawn.length, 1) > (horizontal ? 14 : 34);
  const label = options.showValue === "always" || (options.showValue !== "never" && room);
  return chart(body, {
    grid: { left: 8, right: horizontal && label ? 56 : key.right, top: 16, bottom: key.bottom, containLabel: true }, legend: key.legend,
    tooltip: tooltip("axis", (points) => tooltipRows(points[0].name, points.map((point) => ({ marker: point.marker, name: point.seriesName, value: text(drawn[point.seriesIndex], drawn[point.seriesIndex].values[point.dataIndex]) })))),
    xAxis: horizontal ? values : category, yAxis: horizontal ? category : values,
    series: drawn.map((field) => ({
      name: field.name, type: "bar", color: field.colour, barMaxWidth: 64, stack: options.stacking && options.stacking !== "none" ? "all" : undefined, [horizontal ? "xAxisIndex" : "yAxisIndex"]: horizontal ? 0 : index(field),
      data: field.values.map((value, at) => ({ value: percent && total(at) ? value / total(at) : value, itemStyle: { color: byThreshold(field) ? valueColour(field, value) : field.colour, opacity: Math.max((field.config.custom?.fillOpacity ?? 80) / 100, 0.4) } })),
      label: { show: label, position: horizontal ? "right" : "top", color: style("--text"), formatter: (point) => text(field, field.values[point.dataIndex]) },
    })),
  });
}

function piechart(body, panel, fields) {
  const numbers = numbersOf(fields);
  colourFields(numbers);
  const single = numbers.length === 1 && panel.options?.reduceOptions?.values;
  const entries = reduced(panel, fields).filter((entry) => isNumber(entry.value) && entry.value > 0);
  if (!entries.length) return false;
  const sort = panel.options?.sort ?? "desc";
  if (sort !== "none") entries.sort((a, b) => (sort === "asc" ? a.value - b.value : b.value - a.value));
  // Named colours of overrides go by the row's name as well as by the field's.
  if (single) entries.forEach((entry, at) => { entry.field.colour = overriddenColour(panel, entry.name) ?? PALETTE[at % PALETTE.length]; });
  const sum = entries.reduce((total, entry) => total + entry.value, 0);
  const shown = panel.options?.displayLabels ?? [];
  const label = (at) => shown.map((what) => ({ name: entries[at].name, value: text(entries[at].field, entries[at].value), percent: `${digits((100 * entries[at].value) / sum, 0)}%` })[what]).filter(Boolean).join(" ");
  const key = legend(panel, entries.map((entry) => entry.name), body.clientWidth);
  const right = key.right > 100;
  const also = panel.options?.legend?.values ?? [];
  const named = new Map(entries.map((entry) => [entry.name, entry]));
  const explained = (name) => [name, ...also.map((what) => (what === "percent" ? `${digits((100 * named.get(name).value) / sum, 0)}%` : text(named.get(name).field, named.get(name).value)))].join("  ");
  return chart(body, {
    legend: { ...key.legend, formatter: explained, data: entries.map((entry) => entry.name) },
    tooltip: tooltip("item", (point) => tooltipRows(point.name, [{ marker: point.marker, name: `${digits(point.percent, 1)}%`, value: text(entries[point.dataIndex].field, point.value) }])),
    series: [{
      type: "pie", radius: panel.options?.pieType === "donut" ? ["48%", "82%"] : "82%", center: [right ? "36%" : "50%", right ? "50%" : "46%"], itemStyle: { borderColor: style("--panel"), borderWidth: 2 },
      data: entries.map((entry) => ({ name: entry.name, value: entry.value, itemStyle: { color: entry.field.colour } })),
      label: { show: shown.length > 0, position: "inside", color: "#fff", formatter: (point) => label(point.dataIndex) }, labelLine: { show: false },
    }],
  });
}

function overriddenColour(panel, name) {
  const override = (panel.fieldConfig?.overrides ?? []).find(({ matcher }) => isMeant(matcher, name, { name, kind: "number" }, ""));
  const own = override?.properties?.find(({ id }) => id === "color")?.value;
  return own?.fixedColor ? colour(own.fixedColor) : null;
}

function heatmap(body, panel, fields) {
  const time = fields.find((field) => field.kind === "time") ?? fields.find((field) => field.kind === "string");
  let rows = numbersOf(fields).filter((field) => field.values.some((value) => value !== null));
  if (!time || !rows.length) return false;
  if (rows.every((field) => Object.keys(field.labels ?? {}).length)) rows.forEach((field) => { field.name = Object.values(field.labels).join(", "); });
  if (rows.every((field) => Number.isFinite(parseFloat(field.name)))) rows = rows.toSorted((a, b) => parseFloat(a.name) - parseFloat(b.name));
  const cells = rows.flatMap((field, y) => field.values.map((value, x) => [x, y, value]).filter(([, , value]) => value !== null && value !== 0));
  if (!cells.length) return false;
  const { low, high } = cells.reduce((ends, [, , value]) => ({ low: Math.min(ends.low, value), high: Math.max(ends.high, value) }), { low: Infinity, high: -Infinity });
  const scheme = SCALES[rows[0].config.color?.mode] ?? [mixed(HUES.blue, isDark() ? "#101418" : "#ffffff", 0.82), HUES.blue, isDark() ? "#cfe6ff" : "#12304f"];
  const column = (value) => (time.kind === "time" ? dateText(value).slice(5, 16) : text(time, value));
  return chart(body, {
    grid: { left: 8, right: 14, top: 12, bottom: 40, containLabel: true },
    tooltip: tooltip("item", (point) => tooltipRows(time.kind === "time" ? dateText(time.values[point.value[0]]) : text(time, time.values[point.value[0]]), [{ marker: point.marker, name: rows[point.value[1]].name, value: text(rows[point.value[1]], point.value[2]) }])),
    xAxis: { ...axisStyle(), type: "category", data: time.values.map(column), splitLine: { show: false } },
    yAxis: { ...axisStyle(), type: "category", data: rows.map((field) => field.name), splitLine: { show: false } },
    visualMap: { min: Math.min(low, rows[0].config.min ?? low), max: high, calculable: false, orient: "horizontal", left: "center", bottom: 0, itemHeight: 120, itemWidth: 10, inRange: { color: scheme.map(colour) }, textStyle: { color: style("--soft") }, text: [text(rows[0], high), text(rows[0], low)] },
    series: [{ type: "heatmap", data: cells, progressive: 0, itemStyle: { borderColor: style("--panel"), borderWidth: cells.length > 2000 ? 0 : 1 } }],
  });
}

function gauge(body, panel, fields) {
  colourFields(numbersOf(fields));
  const entries = reduced(panel, fields).filter((entry) => isNumber(entry.value));
  if (!entries.length) return false;
  const across = Math.max(1, Math.min(entries.length, Math.round(body.clientWidth / 170)));
  const down = Math.ceil(entries.length / across);
  const ends = ({ field }) => [field.config.min ?? Math.min(0, field.low), field.config.max ?? (field.config.unit === "percentunit" ? 1 : field.config.unit === "percent" ? 100 : Math.max(field.high, 1))];
  const size = Math.min(body.clientWidth / across, (body.clientHeight / down) * 1.1);
  return chart(body, {
    series: entries.map((entry, at) => ({
      type: "gauge", startAngle: 205, endAngle: -25, min: ends(entry)[0], max: ends(entry)[1], radius: size * 0.42, center: [`${(100 * ((at % across) + 0.5)) / across}%`, `${(100 * (Math.floor(at / across) + 0.58)) / down}%`],
      progress: { show: true, width: size * 0.08, itemStyle: { color: valueColour(entry.field, entry.value) ?? PALETTE[0] } }, axisLine: { lineStyle: { width: size * 0.08, color: [[1, style("--line")]] } },
      pointer: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false },
      title: { show: entries.length > 1, offsetCenter: [0, "72%"], color: style("--soft"), fontSize: 12 }, detail: { offsetCenter: [0, "8%"], color: style("--text"), fontSize: Math.max(14, size * 0.11), formatter: () => text(entry.field, entry.value) },
      data: [{ value: entry.value, name: entry.name }],
    })),
  });
}

function sparkline(entry, ink) {
  const known = entry.values.map((value, at) => [at, value]).filter(([, value]) => isNumber(value));
  if (known.length < 2) return null;
  const [low, high] = [CALCS.min(entry.values), CALCS.max(entry.values)];
  const point = ([at, value]) => `${((100 * at) / (entry.values.length - 1)).toFixed(2)},${(28 - (26 * (value - low)) / (high - low || 1)).toFixed(2)}`;
  const path = known.map(point).join(" L");
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  box.setAttribute("viewBox", "0 0 100 30");
  box.setAttribute("preserveAspectRatio", "none");
  box.setAttribute("aria-hidden", "true");
  for (const [d, attributes] of [[`M${point(known[0]).split(",")[0]},30 L${path} L${point(known.at(-1)).split(",")[0]},30 Z`, { fill: ink, opacity: 0.18 }], [`M${path}`, { fill: "none", stroke: ink, "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" }]]) {
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ d, ...attributes })) drawn.setAttribute(name, value);
    box.append(drawn);
  }
  return box;
}

function stat(body, panel, fields) {
  const options = panel.options ?? {};
  colourFields(fields.filter((field) => isWanted(field, options.reduceOptions?.fields)));
  const entries = reduced(panel, fields);
  if (!entries.length || !entries.some((entry) => entry.field.values.length)) return false;
  const withName = options.textMode === "value_and_name" || options.textMode === "name" || (options.textMode !== "value" && entries.length > 1);
  const tiles = entries.map((entry) => {
    const empty = entry.value === null || entry.value === undefined;
    const ink = empty ? null : valueColour(entry.field, entry.value);
    const background = options.colorMode === "background" || options.colorMode === "background_solid";
    const shown = options.textMode === "name" ? entry.name : text(entry.field, entry.value) || "no data";
    const number = element("div", { class: "number", style: !background && options.colorMode !== "none" && ink ? `color:${onPanel(ink)}` : "" }, shown);
    const tile = element("div", { class: background ? "tile filled" : "tile", style: background && ink ? `background:${ink};color:${contrasting(ink)}` : "" }, linked(number, entry.field, { value: entry.value, text: shown, name: entry.name }));
    if (withName && options.textMode !== "name") tile.append(element("div", { class: "name" }, entry.name));
    const spark = options.graphMode === "area" ? sparkline(entry, background ? contrasting(ink ?? "#000000") : ink ?? PALETTE[0]) : null;
    if (spark) tile.append(spark);
    return tile;
  });
  body.replaceChildren(element("div", { class: `tiles ${options.orientation === "horizontal" ? "stacked" : ""}` }, ...tiles));
  return entries.some((entry) => entry.value !== null && entry.value !== undefined) || "empty";
}

const luminance = (hex) => channels(hex).map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
const isHex = (ink) => /^#[0-9a-f]{6}$/i.test(ink);
const contrasting = (ink) => (isHex(ink) && luminance(ink) > 0.36 ? "#14181d" : "#ffffff");
// A colour as ink that can be read on a panel.
function onPanel(ink) {
  if (!isHex(ink)) return ink;
  return isDark() ? mixed(ink, "#ffffff", 0.22) : mixed(ink, "#000000", luminance(ink) > 0.25 ? 0.42 : 0.18);
}

function bargauge(body, panel, fields) {
  colourFields(numbersOf(fields));
  const entries = reduced(panel, fields).filter((entry) => isNumber(entry.value));
  if (!entries.length) return false;
  const most = Math.max(...entries.map((entry) => entry.value));
  const rows = entries.map((entry) => {
    const low = entry.field.config.min ?? Math.min(0, entry.field.low), high = entry.field.config.max ?? most;
    const share = high > low ? Math.min(Math.max((entry.value - low) / (high - low), 0), 1) : 0;
    const bar = element("div", { class: "bar-track" }, element("div", { class: "bar-fill", style: `width:${(100 * share).toFixed(2)}%;background:${valueColour(entry.field, entry.value) ?? PALETTE[0]}` }));
    return element("div", { class: "bar-row" }, element("span", { class: "name", title: entry.name }, entry.name), bar, linked(element("span", { class: "value" }, text(entry.field, entry.value)), entry.field, { value: entry.value, name: entry.name }));
  });
  body.replaceChildren(element("div", { class: "bars", tabindex: "0", role: "group", "aria-label": panel.title }, ...rows));
  return true;
}

// ---- tables

const sorting = new Map();

function compared(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "string" ? a.localeCompare(b) : a < b ? -1 : a > b ? 1 : 0;
}

function tableCell(field, value, scope) {
  const cell = element("td", { class: field.kind === "number" ? "right" : "" });
  const { type, mode } = field.config.custom?.cellOptions ?? { type: field.config.custom?.displayMode };
  const ink = type && type !== "auto" && value !== null ? valueColour(field, value) : mapped(field.config, value)?.color ? colour(mapped(field.config, value).color) : null;
  const shown = text(field, value);
  if (type === "gauge" && isNumber(value)) {
    const low = field.config.min ?? Math.min(0, field.low), high = field.config.max ?? field.high;
    const share = high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0;
    cell.append(element("div", { class: "cell-gauge" }, element("div", { class: "bar-track" }, element("div", { class: "bar-fill", style: `width:${(100 * share).toFixed(1)}%;background:${ink ?? PALETTE[0]}` })), element("span", {}, shown)));
    return cell;
  }
  if (ink && type === "color-background" && ink !== "transparent") cell.style.cssText = `background:${ink};color:${contrasting(ink)}`;
  else if (ink && ink !== "transparent") cell.style.color = onPanel(ink);
  cell.append(linked(document.createTextNode(shown), field, { ...scope, value, text: shown, name: field.name }));
  if (mode === "wrap") cell.classList.add("wrap");
  return cell;
}

function table(body, panel, fields) {
  const shown = fields.filter((field) => !field.config.custom?.hidden && !field.config.custom?.hideFrom?.viz && field.frame === (panel.options?.frameIndex ?? 0));
  const rows = Math.max(0, ...shown.map((field) => field.values.length));
  if (!rows) return false;
  const initial = panel.options?.sortBy?.[0];
  const sorted = sorting.get(panel.id) ?? (initial ? { name: initial.displayName, descending: initial.desc } : null);
  const order = Array.from({ length: rows }, (_, row) => row);
  const by = shown.find((field) => field.name === sorted?.name);
  if (by) order.sort((a, b) => compared(by.values[a], by.values[b]) * (sorted.descending ? -1 : 1));
  const heads = shown.map((field) => {
    const state = by === field ? (sorted.descending ? "descending" : "ascending") : null;
    const button = element("button", { type: "button" }, field.name, state ? element("span", { "aria-hidden": "true" }, state === "descending" ? " ▾" : " ▴") : null);
    button.addEventListener("click", () => {
      sorting.set(panel.id, { name: field.name, descending: state === null ? field.kind === "number" : state === "ascending" });
      table(body, panel, fields);
      $$("thead button", body)[shown.indexOf(field)].focus();
    });
    const width = field.config.custom?.width;
    return element("th", { scope: "col", "aria-sort": state, class: field.kind === "number" ? "right" : "", style: width ? `width:${width}px` : "" }, button);
  });
  const lines = order.map((row) => {
    const cell = (name) => String(fields.find((field, at) => field.name === name || field.source === name || String(at) === name)?.values[row] ?? "");
    return element("tr", {}, ...shown.map((field) => tableCell(field, field.values[row], { row, cell })));
  });
  const made = element("table", {}, element("caption", { class: "unseen" }, panel.title), panel.options?.showHeader === false ? null : element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...lines));
  body.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": panel.title }, made));
  return true;
}

const DRAWERS = { timeseries, barchart, piechart, heatmap, gauge, stat, bargauge, table };

// ---- panels

const state = { from: "", to: "", range: { from: 0, to: 0 }, moved: false, variables: [], parameters: "", refresh: "" };
let dashboard = null;
let asking = new AbortController();
const answers = new Map();

const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

function parameters() {
  const query = new URLSearchParams({ from: state.from, to: state.to });
  for (const variable of state.variables) for (const value of variable.selected) query.append(`var-${variable.name}`, value);
  return query;
}

async function asked(address, query) {
  query.set("tz", zone());
  const answer = await fetch(`${address}?${query}`, { signal: asking.signal });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error ?? `the server answered ${answer.status}`);
  return said;
}

function mark(section, how) {
  section.dataset.state = how;
  section.toggleAttribute("aria-busy", how === "waiting");
}

function say(section, how, words, more = "") {
  mark(section, how);
  $(".body", section).replaceChildren(element("div", { class: `message ${how}` }, element("p", {}, words), more ? element("pre", { tabindex: "0" }, more) : null));
}

function dispose(body) {
  charts.get(body)?.dispose();
  charts.delete(body);
}

function queriesOf(answer) {
  return answer.queries.map(({ refId, sql, ms }) => `-- ${refId}, ${ms} ms\n${sql.trim()}`).join("\n\n");
}

function show(section, panel) {
  const answer = answers.get(panel.id);
  const body = $(".body", section);
  if (!answer) return;
  dispose(body);
  if (answer.title) $("h3", section).textContent = answer.title;
  const view = $("[data-view][aria-pressed=true]", section)?.dataset.view;
  try {
    if (view === "query") {
      body.replaceChildren(element("pre", { class: "query", tabindex: "0", "aria-label": "Query" }, queriesOf(answer)));
      return mark(section, "drawn");
    }
    if (answer.error) return say(section, "failed", "The query failed.", answer.error);
    if (answer.html !== null) {
      const words = element("div", { class: "prose", tabindex: "0" });
      words.innerHTML = answer.html;
      body.replaceChildren(words);
      return mark(section, "drawn");
    }
    const fields = fieldsOf(panel, answer.frames);
    const drawn = view === "table" ? table(body, { ...panel, id: `${panel.id} data`, options: {} }, fields) : DRAWERS[panel.type](body, panel, fields, answer);
    if (drawn === "empty") mark(section, "empty");
    else if (drawn) mark(section, "drawn");
    else say(section, "empty", panel.fieldConfig?.defaults?.noValue && panel.type === "stat" ? panel.fieldConfig.defaults.noValue : "No data");
  } catch (error) {
    say(section, "failed", "The panel cannot be drawn.", error.message);
  }
}

async function load(section) {
  const panel = dashboard.panels.find((known) => String(known.id) === section.dataset.id);
  if (!panel) return;
  if (panel.refused) return say(section, "refused", panel.refused);
  const signal = asking.signal;
  section.setAttribute("aria-busy", "true");
  const query = parameters();
  query.set("points", Math.max(50, Math.round($(".body", section).clientWidth)));
  try {
    answers.set(panel.id, await asked(`/api/dashboards/${encodeURIComponent(dashboard.uid)}/panels/${panel.id}`, query));
    if (!signal.aborted) show(section, panel);
  } catch (error) {
    if (!signal.aborted) say(section, "failed", "There is no answer.", error.message);
  }
  section.removeAttribute("aria-busy");
}

// Panels of a closed row are not asked for until it is opened.
const isShown = (section) => !section.closest("details.row:not([open])");

async function loadPanels() {
  document.documentElement.dataset.ready = "false";
  const { signal } = asking;
  await Promise.all($$(".panel").filter(isShown).map(load));
  if (!signal.aborted) document.documentElement.dataset.ready = "true";
}

function redraw() {
  for (const section of $$(".panel")) {
    const panel = dashboard.panels.find((known) => String(known.id) === section.dataset.id);
    if (panel) show(section, panel);
  }
}

// ---- range, variables, refresh

const QUICK = [["now-5m", "Last 5 minutes"], ["now-15m", "Last 15 minutes"], ["now-1h", "Last hour"], ["now-6h", "Last 6 hours"], ["now-24h", "Last 24 hours"], ["now-7d", "Last 7 days"], ["now-30d", "Last 30 days"], ["now-1y", "Last year"], ["now/d", "Today", "now"], ["now-1d/d", "Yesterday", "now-1d/d"]];
const REFRESHES = ["", "5s", "10s", "30s", "1m", "5m", "15m"];

function writtenTime(time) {
  return /^\d+$/.test(time) ? dateText(Number(time)) : time;
}

function rangeText() {
  const quick = QUICK.find(([from, , to = "now"]) => from === state.from && to === state.to);
  return quick ? quick[1] : `${writtenTime(state.from)} to ${writtenTime(state.to)}`;
}

function go(changes) {
  Object.assign(state, changes);
  const query = parameters();
  if (state.refresh) query.set("refresh", state.refresh);
  history.pushState(null, "", `?${query}`);
  return open();
}

function drawRange() {
  $("#range-text").textContent = rangeText();
  const sheet = $("#range .sheet");
  const close = () => { $("#range").open = false; $("#range summary").focus(); };
  const quick = QUICK.map(([from, name, to = "now"]) => {
    const button = element("button", { type: "button", "aria-current": from === state.from && to === state.to ? "true" : null }, name);
    button.addEventListener("click", () => { close(); go({ from, to }); });
    return button;
  });
  const [from, to] = ["From", "To"].map((name) => element("input", { name: name.toLowerCase(), value: writtenTime(state[name.toLowerCase()]), autocomplete: "off", spellcheck: "false" }));
  const form = element("form", {}, element("label", {}, "From", from), element("label", {}, "To", to), element("p", { class: "hint" }, "now-6h, now/d, or 2026-01-31 12:00:00"), element("button", { type: "submit" }, "Apply"));
  form.addEventListener("submit", (event) => { event.preventDefault(); close(); go({ from: from.value, to: to.value }); });
  sheet.replaceChildren(element("div", { class: "quick" }, ...quick), form);
}

function drawVariables() {
  const controls = state.variables.filter((variable) => !variable.hidden).map((variable) => {
    const id = `variable-${variable.name}`;
    const change = (selected) => { variable.selected = selected; go({}); };
    const label = element("label", { for: id, title: variable.description || null }, variable.label);
    if (variable.error) return element("span", { class: "variable" }, label, element("span", { id, class: "failed" }, variable.error));
    if (variable.multi) return element("div", { class: "variable" }, element("span", {}, variable.label), several(variable, id, change));
    const typed = variable.kind === "textbox" || variable.choices.length > 40 || !variable.choices.some(([value]) => value === variable.selected[0]);
    const control = typed
      ? element("input", { id, value: variable.selected[0] ?? "", list: `${id}-choices`, autocomplete: "off" })
      : element("select", { id }, ...variable.choices.map(([value, name]) => element("option", { value, selected: variable.selected.includes(value) }, name)));
    control.addEventListener("change", () => change([control.value]));
    const choices = typed && variable.kind !== "textbox" ? element("datalist", { id: `${id}-choices` }, ...variable.choices.map(([value, name]) => element("option", { value }, name))) : null;
    return element("span", { class: "variable" }, label, control, choices);
  });
  const focused = document.activeElement?.id;
  $("#variables").replaceChildren(...controls);
  if (focused) document.getElementById(focused)?.focus();
}

function several(variable, id, change) {
  const chosen = new Set(variable.selected);
  const names = variable.choices.filter(([value]) => chosen.has(value)).map(([, name]) => name);
  const summary = element("summary", { id, "aria-label": `${variable.label}: ${names.join(", ")}` }, names.length > 2 ? `${names.length} selected` : names.join(" + ") || "none");
  const boxes = variable.choices.map(([value, name]) => {
    const box = element("input", { type: "checkbox", checked: chosen.has(value) });
    box.addEventListener("change", () => {
      if (value === "$__all") { chosen.clear(); if (box.checked) chosen.add(value); }
      else { box.checked ? chosen.add(value) : chosen.delete(value); chosen.delete("$__all"); }
      boxes.forEach((label, at) => { $("input", label).checked = chosen.has(variable.choices[at][0]); });
    });
    return element("label", {}, box, name);
  });
  const apply = element("button", { type: "button" }, "Apply");
  const popover = element("details", { class: "popover" }, summary, element("div", { class: "sheet" }, element("div", { class: "choices" }, ...boxes), apply));
  apply.addEventListener("click", () => { popover.open = false; change(chosen.size ? [...chosen] : [variable.choices[0]?.[0] ?? ""]); });
  return popover;
}

let timer = 0;

function drawRefresh() {
  const all = REFRESHES.includes(state.refresh) ? REFRESHES : [...REFRESHES, state.refresh];
  $("#refresh").replaceChildren(...all.map((every) => element("option", { value: every, selected: every === state.refresh }, every || "off")));
  clearInterval(timer);
  const [, count, unit] = /^(\d+)(s|m|h)$/.exec(state.refresh) ?? [];
  if (count) timer = setInterval(() => { if (!document.hidden) open(true); }, count * { s: 1e3, m: 6e4, h: 36e5 }[unit]);
}

function drawLinks() {
  for (const link of $$("a[data-keep]")) {
    link.dataset.url ??= link.getAttribute("href");
    const address = new URL(filled(link.dataset.url), location.href);
    if (link.dataset.keep.includes("time")) { address.searchParams.set("from", state.from); address.searchParams.set("to", state.to); }
    if (link.dataset.keep.includes("vars")) {
      for (const variable of state.variables.filter((known) => !known.hidden)) {
        address.searchParams.delete(`var-${variable.name}`);
        for (const value of variable.selected) address.searchParams.append(`var-${variable.name}`, value);
      }
    }
    link.href = address.origin === location.origin ? address.pathname + address.search : address.href;
  }
}

function notify(words, ...more) {
  const notice = $("#notice");
  notice.hidden = !words;
  notice.replaceChildren(words ?? "", ...more);
}

// Asks for the dashboard as the address says, then for its panels. Again: at the same range, without a word.
async function open(again = false) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const query = new URLSearchParams(location.search);
  if (again && !query.has("from")) { query.set("from", state.from); query.set("to", state.to); }
  try {
    const opened = await asked(`/api/dashboards/${encodeURIComponent(dashboard.uid)}`, query);
    Object.assign(state, opened);
    if (!again) state.refresh = query.get("refresh") ?? (opened.moved ? "" : typeof dashboard.refresh === "string" ? dashboard.refresh : "");
  } catch (error) {
    if (!signal.aborted) notify(`There is no answer: ${error.message}`);
    if (!signal.aborted) document.documentElement.dataset.ready = "true";
    return;
  }
  if (state.moved) notify("The dashboard's usual range holds no data: this is the range of the data itself.");
  else notify(null);
  if (!again) { drawRange(); drawVariables(); drawRefresh(); }
  drawLinks();
  await loadPanels();
}

// ---- begin

function closePopovers(but) {
  for (const popover of $$("details.popover[open]")) if (!popover.contains(but)) popover.open = false;
}

function wire() {
  document.addEventListener("click", (event) => closePopovers(event.target));
  document.addEventListener("keydown", (event) => {
    const popover = event.key === "Escape" && document.activeElement?.closest("details.popover[open]");
    if (popover) { popover.open = false; $("summary", popover).focus(); }
  });
  $("#refresh").addEventListener("change", () => { state.refresh = $("#refresh").value; go({}); });
  $("#reload").addEventListener("click", () => open(true));
  addEventListener("popstate", () => open());
  // A row that is open from the beginning says so too, before the range is known; its panels are asked for with all the others.
  for (const row of $$("details.row")) row.addEventListener("toggle", () => { if (row.open && state.from) $$(".panel[data-state=waiting]", row).forEach(load); });
  for (const button of $$("[data-view]")) {
    button.addEventListener("click", () => {
      const section = button.closest(".panel");
      const pressed = button.getAttribute("aria-pressed") !== "true";
      for (const other of $$("[data-view]", section)) other.setAttribute("aria-pressed", String(other === button && pressed));
      button.closest("details").open = false;
      show(section, dashboard.panels.find((known) => String(known.id) === section.dataset.id));
    });
  }
  let resizing = 0;
  const resized = new ResizeObserver(() => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(() => charts.forEach((drawn) => drawn.resize()));
  });
  $$(".panel .body").forEach((body) => resized.observe(body));
}

document.addEventListener("DOMContentLoaded", () => {
  applyTheme();
  $("#theme")?.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    stored("theme", names[(names.indexOf(theme()) + 1) % names.length]);
    applyTheme();
    if (dashboard) redraw();
  });
  const told = $("#dashboard");
  if (!told) return;
  dashboard = JSON.parse(told.textContent);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  wire();
  open();
});
