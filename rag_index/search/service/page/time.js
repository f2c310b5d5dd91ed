// Times as people say them.

import { make } from "./dom.js";

const ISO = /^\d{4}-\d{2}-\d{2}(?<time>[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(?<zone>Z|[+-]\d{2}:?\d{2})?)?$/;

// Return an element that shows a day or a time as the reader writes it, null for other text and for a day that no month
// has, of which browsers make another. Without a zone it is UTC.
export function time(text) {
  const found = ISO.exec(text);
  const when = found && new Date(found.groups.time && !found.groups.zone ? `${text}Z` : text);
  if (!found || Number.isNaN(when.getTime())) return null;
  if (new Date(text.slice(0, 10)).getUTCDate() !== Number(text.slice(8, 10))) return null;
  const format = found.groups.time ? { dateStyle: "medium", timeStyle: "short" } : { dateStyle: "medium", timeZone: "UTC" };
  return make("time", { dateTime: text, title: text }, new Intl.DateTimeFormat(undefined, format).format(when));
}

// Return how long ago a time was, in the largest unit that fits.
export function age(time) {
  if (!time) return "";
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  if (seconds < 90) return "just now";
  if (seconds < 5400) return words.format(-Math.round(seconds / 60), "minute");
  if (seconds < 129600) return words.format(-Math.round(seconds / 3600), "hour");
  return words.format(-Math.round(seconds / 86400), "day");
}
