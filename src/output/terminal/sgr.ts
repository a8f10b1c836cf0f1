/**
 * How a terminal writes: colours, weight and the like, as the codes for them (SGR) have set them.
 *
 * @module
 */

/** The codes that lead from the default to what is set, in the order it was set; empty at the default. */
export type Sgr = string

/** What a terminal begins with. */
export const initial: Sgr = ""

/** A code for colours and the like. */
const code = new RegExp("\x1b\\[([\\d;:]{0,64})m", "g")

/** The pen after a code with these parameters. */
export function set(pen: Sgr, parameters: string): Sgr {
  const attributes = new Map<number, string>()
  const put = (number: number, attribute: string): void => {
    const key = keyOf(number)
    if (key !== undefined) attributes.set(key, attribute)
  }
  for (const [whole, attribute = ""] of pen.matchAll(code)) put(numberOf(attribute), whole)
  const all = parameters.split(";")
  for (let index = 0; index < all.length; index++) {
    const first = all[index] ?? ""
    const number = numberOf(first)
    if (number === 0) attributes.clear()
    else if (number === 22) [1, 2].forEach((weight) => attributes.delete(weight))
    else if (ends.has(number)) attributes.delete(number)
    else {
      const length = extended.has(number) && !first.includes(":") ? lengths.get(all[index + 1]) ?? 1 : 1
      put(number, `\x1b[${all.slice(index, index + length).join(";")}m`)
      index += length - 1
    }
  }
  return [...attributes.values()].join("")
}

/** The pen after a text. */
export function after(pen: Sgr, text: string): Sgr {
  if (!text.includes("\x1b[")) return pen
  // What was set before it went back to the default does not matter.
  const reset = Math.max(text.lastIndexOf("\x1b[0m"), text.lastIndexOf("\x1b[m"))
  let current = reset < 0 ? pen : initial
  for (const [, parameters = ""] of text.slice(Math.max(0, reset)).matchAll(code)) {
    current = set(current, parameters)
  }
  return current
}

/** The codes that make one pen of another. */
export function change(from: Sgr, to: Sgr): string {
  if (from === to) return ""
  return to.startsWith(from) ? to.slice(from.length) : `\x1b[0m${to}`
}

/** Colours that take more parameters: one of 256, or red, green and blue. */
const extended: ReadonlySet<number> = new Set([38, 48, 58])
const lengths: ReadonlyMap<string | undefined, number> = new Map([["5", 3], ["2", 5]])

/** What ends an attribute. */
const ends: ReadonlySet<number> = new Set([23, 24, 25, 27, 28, 29, 39, 49, 55, 59])

const numberOf = (attribute: string): number => Number.parseInt(attribute, 10) || 0

/**
 * What an attribute takes the place of, as the number that ends it; bold and faint have one in common. None for what no
 * terminal knows: there is no end to such numbers, and a pen would grow with each of them.
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
