/**
 * Tells built-in objects of JavaScript from others, also those of another realm, such as a frame or a `vm` context. In
 * place of `node:util`, which browsers do not have.
 *
 * @module
 */

/** Makes a guard by a getter or a method of the prototype, which throws for objects that are not built in. */
const guard =
  <A extends object>(name: string, is: (value: object) => boolean, read: (value: object) => unknown) =>
  (value: unknown): value is A => {
    if (typeof value !== "object" || value === null) return false
    if (!is(value) && Object.prototype.toString.call(value) !== `[object ${name}]`) return false
    try {
      read(value)
      return true
    } catch {
      return false
    }
  }

/** Returns a function that reads a member of a prototype from any object. */
function reader(prototype: object, name: PropertyKey): (value: object) => unknown {
  const { get, value: method } = Object.getOwnPropertyDescriptor(prototype, name) ?? {}
  const read: () => unknown = get ?? method
  return (value) => Reflect.apply(read, value, [])
}

/** Tells whether a value is a `Date`. */
export const isDate = guard<Date>("Date", (value) => value instanceof Date, reader(Date.prototype, "getTime"))

/** Tells whether a value is a `Map`. */
export const isMap = guard<Map<unknown, unknown>>(
  "Map",
  (value) => value instanceof Map,
  reader(Map.prototype, "size"),
)

/** Tells whether a value is a `Set`. */
export const isSet = guard<Set<unknown>>(
  "Set",
  (value) => value instanceof Set,
  reader(Set.prototype, "size"),
)

const isArrayBuffer = guard<ArrayBuffer>(
  "ArrayBuffer",
  (value) => value instanceof ArrayBuffer,
  reader(ArrayBuffer.prototype, "byteLength"),
)

// Browsers have it on isolated pages only.
const Shared = globalThis.SharedArrayBuffer
const isSharedArrayBuffer = Shared === undefined ? () => false : guard<SharedArrayBuffer>(
  "SharedArrayBuffer",
  (value) => value instanceof Shared,
  reader(Shared.prototype, "byteLength"),
)

/** Tells whether a value is an `ArrayBuffer` or a `SharedArrayBuffer`. */
export const isAnyArrayBuffer = (value: unknown): value is ArrayBufferLike =>
  isArrayBuffer(value) || isSharedArrayBuffer(value)

/** The name of the class of a typed array. */
const arrayName = reader(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)

/** Tells whether a value is a `Uint8Array`. */
export const isUint8Array = (value: unknown): value is Uint8Array =>
  ArrayBuffer.isView(value) && arrayName(value) === "Uint8Array"
