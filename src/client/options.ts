/**
 * Options of a kernel that a program holds.
 *
 * @module
 */
import type * as Start from "../kernel/start.ts"
import type { Images } from "../output/images.ts"

/**
 * Options of a kernel.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions extends Start.StartOptions {
  /** The directory that images are written to, created with the first image; `"images"` by default. */
  readonly imagesDir?: string | undefined
  /**
   * The destination of images: files in `imagesDir` (`"directory"`, the default), `bytes` of the result's images, or a
   * function that stores an image and returns the `path` for the result. If the function fails, only that image is
   * missing.
   */
  readonly images?: Images | undefined
}

/**
 * Options of a client that attaches to a kernel. Those of a start are for kernels that replace it by `reset`.
 *
 * @category options
 * @since 0.1.0
 */
export interface AttachOptions extends ClientOptions {
  /** Deletes the kernel when the scope closes; false by default, as it was detached. */
  readonly deletes?: boolean | undefined
}
