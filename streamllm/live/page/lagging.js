// Latency from delays, as streamllm/metrics/latency.py has it. What is undefined is NaN.

/**
 * Average Lagging (Ma et al. 2019) of one sentence.
 * @param delays source units read when each target unit was written
 * @param source length of the source, in units
 * @param target length of the reference, or of the output where there is none; then it is LAAL (Papi et al. 2022), too
 */
export function averageLagging(delays, source, target) {
  if (!delays.length) return NaN;
  if (delays[0] > source) return delays[0];
  if (!source || !target) return NaN;
  const last = delays.findIndex((delay) => delay >= source);
  const counted = last < 0 ? delays : delays.slice(0, last + 1);
  return counted.reduce((sum, delay, t) => sum + delay - (t * source) / target, 0) / counted.length;
}

/** LAAL: writing more than the reference has is not rewarded. */
export const lengthAdaptiveAverageLagging = (delays, source, target) =>
  averageLagging(delays, source, Math.max(delays.length, target));

/** Units from which on a lag has the next colour. */
export const STEPS = [2, 4, 6, 9];

/** Which colour a lag has, 0 to 4. */
export const shade = (lag) => STEPS.filter((step) => lag >= step).length;

export function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : NaN;
}

export function median(values) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
