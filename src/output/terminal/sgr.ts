/**
 * Colors, weight and other attributes of characters, as codes for Select Graphic Rendition (SGR) set them.
 *
 * @module
 */

/** The codes that set the current attributes, in the order they were set; empty by default. */
export type Sgr = string

/** The default attributes. */
export const initial: Sgr = ""

/** An SGR code. */
const code = new RegExp("\x1b\\[([\\d;:]{0,64})m", "g")

/** Returns the attributes after a code with these parameters. */
export function set(sgr: Sgr, parameters: string): Sgr {
  const attributes = new Map<number, string>()
  const put = (number: number, attribute: string): void => {
    const key = keyOf(number)
    if (key !== undefined) attributes.set(key, attribute)
  }
  for (const [whole, attribute = ""] of sgr.matchAll(code)) put(numberOf(attribute), whole)
  const all = parameters.split(";")
  for (let index = 0; index < all.length; index++) {
    const first = all[index] ?? ""
    const number = numberOf(first)
    if (number === 0) attributes.clear()
    else if (number === 22) [1, 2].forEach((weight) => attributes.delete(weight))
    else if (resets.has(number)) attributes.delete(number)
    else {
      const length = extended.has(number) && !first.includes(":")
        ? extendedLengths.get(all[index + 1]) ?? 1
        : 1
      put(number, `\x1b[${all.slice(index, index + length).join(";")}m`)
      index += length - 1
    }
  }
  return [...attributes.values()].join("")
}

/** Returns the attributes after a text. */
export function after(sgr: Sgr, text: string): Sgr {
  if (!text.includes("\x1b[")) return sgr
  // Attributes before the last reset have no effect.
  const reset = Math.max(text.lastIndexOf("\x1b[0m"), text.lastIndexOf("\x1b[m"))
  let current = reset < 0 ? sgr : initial
  for (const [, parameters = ""] of text.slice(Math.max(0, reset)).matchAll(code)) {
    current = set(current, parameters)
  }
  return current
}

/** Returns the codes that change one set of attributes into another. */
export function change(from: Sgr, to: Sgr): string {
  if (from === to) return ""
  return to.startsWith(from) ? to.slice(from.length) : `\x1b[0m${to}`
}

/** Colors with more parameters: an index of 256 colors, or red, green and blue. */
const extended: ReadonlySet<number> = new Set([38, 48, 58])
const extendedLengths: ReadonlyMap<string | undefined, number> = new Map([["5", 3], ["2", 5]])

/** Codes that reset one attribute. */
const resets: ReadonlySet<number> = new Set([23, 24, 25, 27, 28, 29, 39, 49, 55, 59])

const numberOf = (attribute: string): number => Number.parseInt(attribute, 10) || 0

/**
 * Returns the attribute that a code sets, as the code that resets it; bold and faint share one. Returns `undefined` for
 * unknown codes: they are ignored, as the attributes would grow with each of them.
 */
function keyOf(number: number): number | undefined {
  if ((number >= 30 && number <= 38) || (number >= 90 && number <= 97)) return 39
  if ((number >= 40 && number <= 48) || (number >= 100 && number <= 107)) return 49
  if (number === 4 || number === 21) return 24
  if (number === 5 || number === 6) return 25
  if (number === 53) return 55
  if (number === 58) return 59
  if (number === 1 || number === 2) return number
  return number <= 9 ? number + 20 : undefined
}
