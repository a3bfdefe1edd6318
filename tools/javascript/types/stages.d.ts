/** Types of page/stages.js, which the server makes of gpt2lab/sampling/declaration.py: see `stages_module` in page_files.py. */

export interface Parameter {
  name: string;
  stage: string;
  title: string;
  hint: string;
  default: number;
  /** What the control calls "off"; null for none. */
  off: number | null;
  /** Whether the last position of the slider is `off`. */
  off_last: boolean;
  whole: boolean;
  /** The range that is allowed, and in words. */
  low: number;
  high: number;
  allowed: string;
  /** The range that the server takes. */
  least: number;
  most: number;
  /** Values at even distances on the slider; or positions with values. */
  slider: number[] | [number, number][];
  digits: number;
}

export const PARAMETERS: Parameter[];

/** Titles by name, in the order in which stages are applied. */
export const STAGES: Record<string, string>;
