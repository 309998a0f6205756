/* See idct_sse2.c. */
#ifndef TG_IDCT_SSE2_H
#define TG_IDCT_SSE2_H

/* Makes the decompressor use the inverse DCT whose overflow is that of libjpeg-turbo's SIMD code. It must have been
 * created; scaling must be off. */
void tg_use_exact_idct(j_decompress_ptr cinfo);

#endif
