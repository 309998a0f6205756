/* The interface between Rust and libjpeg.
 *
 * libjpeg reports errors by calling error_exit, which must not return. Here it longjmps back into `guarded`, which wraps
 * every call that can fail, so that neither a panic nor an unwinder ever crosses C frames, whatever compiler flags
 * or panic strategy the program was built with; and only C code depends on the layout of libjpeg's structs. No Rust frame is
 * ever jumped over: libjpeg has no callback outside this file.
 *
 * Input is one block of memory. The source manager suspends when it runs out, as Pillow's does, so that a file that ends
 * too early is distinguished from a broken one, and no pixels are invented for it.
 */
#include "jpeg_shim.h"

#include <jerror.h>

/* The values of the header; decode/jpeg.rs declares the same fields. */
typedef struct {
  unsigned int width;
  unsigned int height;
  int components;        /* as stored */
  int output_components; /* of the rows that tg_jpeg_read_rows writes: 3 = RGB, 4 = CMYK as stored */
  uint64_t coefficient_bytes; /* kept of the whole picture while it is decoded; 0 for a single scan, which keeps none */
} tg_jpeg_header;

/* A rectangle of the picture, in pixels; decode/jpeg.rs declares the same fields. */
typedef struct {
  unsigned int left;
  unsigned int top;
  unsigned int width;
  unsigned int height;
} tg_jpeg_window;

void tg_fail(tg_jpeg *self, int status)
{
  self->failure = status;
  longjmp(self->trap, 1);
}

static void on_error(j_common_ptr common)
{
  tg_jpeg *self = (tg_jpeg *)common->client_data;
  common->err->format_message(common, self->message);
  tg_fail(self, TG_BROKEN);
}

static void discard_message(j_common_ptr common) { (void)common; }

static void no_op(j_decompress_ptr cinfo) { (void)cinfo; }

static boolean suspend(j_decompress_ptr cinfo)
{
  (void)cinfo;
  return FALSE;
}

static void skip(j_decompress_ptr cinfo, long count)
{
  struct jpeg_source_mgr *src = cinfo->src;
  /* Past the end: leave nothing, so that the next read suspends. */
  size_t step = count <= 0 ? 0 : (size_t)count;
  if (step > src->bytes_in_buffer) step = src->bytes_in_buffer;
  src->next_input_byte += step;
  src->bytes_in_buffer -= step;
}

/* Each scan of a progressive file covers the whole picture: thousands of tiny scans would keep a worker busy for hours. */
static void on_progress(j_common_ptr common)
{
  tg_jpeg *self = (tg_jpeg *)common->client_data;
  if (common->is_decompressor && self->max_scans > 0 && self->cinfo.input_scan_number > self->max_scans) {
    snprintf(self->message, sizeof self->message, "more than %d scans", self->max_scans);
    tg_fail(self, TG_TOO_MANY_SCANS);
  }
}

/* Runs `step`, which calls libjpeg. The only setjmp: its frame holds only parameters that are never
 * assigned to, and all state that changes is in `*self` or in the frame of `step`, to which an error never returns. */
static int guarded(tg_jpeg *self, int (*step)(tg_jpeg *self, void *arguments), void *arguments)
{
  if (setjmp(self->trap)) return self->failure;
  return step(self, arguments);
}

void tg_jpeg_destroy(tg_jpeg *self)
{
  if (self == NULL) return;
  if (self->created) jpeg_destroy_decompress(&self->cinfo);
  free(self);
}

static int create(tg_jpeg *self, void *arguments)
{
  (void)arguments;
  jpeg_create_decompress(&self->cinfo);
  self->created = 1;
  return TG_OK;
}

/* One object decodes one file: libjpeg keeps quantization and Huffman tables from file to file, and what a picture decodes
 * to must not depend on what was decoded before it. NULL when memory is short. */
tg_jpeg *tg_jpeg_create(void)
{
  tg_jpeg *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  self->cinfo.err = jpeg_std_error(&self->err);
  self->cinfo.client_data = self; /* kept by jpeg_create_decompress */
  self->err.error_exit = on_error;
  self->err.output_message = discard_message;
  if (guarded(self, create, NULL) != TG_OK) {
    tg_jpeg_destroy(self);
    return NULL;
  }
  self->src.init_source = no_op;
  self->src.fill_input_buffer = suspend;
  self->src.skip_input_data = skip;
  self->src.resync_to_restart = jpeg_resync_to_restart;
  self->src.term_source = no_op;
  self->progress.progress_monitor = on_progress;
  self->cinfo.src = &self->src;
  self->cinfo.progress = &self->progress;
  return self;
}

/* Bytes that libjpeg allocates for the coefficients of a file of several scans: whole MCUs of every component. */
static uint64_t coefficient_bytes(struct jpeg_decompress_struct *cinfo)
{
  uint64_t blocks = 0;
  if (!jpeg_has_multiple_scans(cinfo)) return 0;
  for (int i = 0; i < cinfo->num_components; i++) {
    const jpeg_component_info *component = &cinfo->comp_info[i];
    uint64_t h = (uint64_t)component->h_samp_factor, v = (uint64_t)component->v_samp_factor;
    uint64_t across = (component->width_in_blocks + h - 1) / h * h;
    uint64_t down = (component->height_in_blocks + v - 1) / v * v;
    blocks += across * down;
  }
  return blocks * sizeof(JBLOCK);
}

static int read_header(tg_jpeg *self, void *arguments)
{
  tg_jpeg_header *header = arguments;
  int status;
  do {
    status = jpeg_read_header(&self->cinfo, FALSE);
  } while (status == JPEG_HEADER_TABLES_ONLY);
  if (status == JPEG_SUSPENDED) return TG_TRUNCATED;
  header->width = self->cinfo.image_width;
  header->height = self->cinfo.image_height;
  header->components = self->cinfo.num_components;
  /* The rest is libjpeg's default: islow DCT, fancy upsampling. It is what Pillow uses. */
  self->cinfo.out_color_space = self->cinfo.num_components == 4 ? JCS_CMYK : JCS_RGB;
  header->output_components = self->cinfo.num_components == 4 ? 4 : 3;
  header->coefficient_bytes = coefficient_bytes(&self->cinfo);
  return TG_OK;
}

/* Reads up to the first scan. `data` must stay valid and unmoved until the last tg_jpeg_read_rows / tg_jpeg_finish.
 * Any later step may return TG_UNSOUND if it was started with a window. */
int tg_jpeg_open(tg_jpeg *self, const unsigned char *data, size_t length, tg_jpeg_header *header)
{
  self->message[0] = '\0';
  self->installed = 0;
  self->src.next_input_byte = data;
  self->src.bytes_in_buffer = length;
  return guarded(self, read_header, header);
}

/* Pixels around a window that the upsampling of its chroma samples reads, with a reserve: at most 4 pixels share a
 * sample, and one sample on each side is mixed in. */
enum { MARGIN = 8 };

/* In narrower pictures a window saves little, and libjpeg upsamples very narrow ones by other rules. */
enum { LEAST_CROPPED_WIDTH = 64 };

/* Whether libjpeg's cropping and skipping give the same samples as decoding all of the picture: with one scan and, should
 * there be one component only, with plain sampling. */
static int can_crop(const struct jpeg_decompress_struct *cinfo)
{
  const jpeg_component_info *first = &cinfo->comp_info[0];
  return cinfo->num_components > 1 || (first->h_samp_factor == 1 && first->v_samp_factor == 1);
}

/* Makes the decoder produce no other columns than those of `window` and those that margins and whole MCUs add. */
static void crop_columns(tg_jpeg *self, tg_jpeg_window *window)
{
  JDIMENSION whole = self->cinfo.output_width;
  JDIMENSION left = window->left > MARGIN ? window->left - MARGIN : 0;
  JDIMENSION right = whole - (window->left + window->width) > MARGIN ? window->left + window->width + MARGIN : whole;
  JDIMENSION width = right - left;
  window->left = 0;
  window->width = whole;
  if (width < LEAST_CROPPED_WIDTH || width == whole) return;
  jpeg_crop_scanline(&self->cinfo, &left, &width);
  window->left = left;
  window->width = width;
}

/* Skips to the row of MCUs before the first one that is needed. */
static void skip_rows(tg_jpeg *self, tg_jpeg_window *window)
{
  JDIMENSION step = (JDIMENSION)(DCTSIZE * self->cinfo.max_v_samp_factor);
  JDIMENSION low = window->top + window->height, rows = window->top / step;
  rows = rows > 1 ? (rows - 1) * step : 0;
  if (rows > 0) jpeg_skip_scanlines(&self->cinfo, rows);
  window->top = rows;
  window->height = low - rows;
}

/* Starts the decompressor; for a progressive file this reads all of it. `argument` is NULL for libjpeg alone and all of the
 * picture; else it is the requested window, and becomes the window that is decoded. */
static int start(tg_jpeg *self, void *argument)
{
  tg_jpeg_window *window = argument;
  struct jpeg_decompress_struct *cinfo = &self->cinfo;
  if (!jpeg_start_decompress(cinfo)) return TG_TRUNCATED;
  if (window == NULL) return TG_OK;
  self->installed = tg_huffman_takes(self);
  if (self->installed) tg_huffman_install(self);
  if (self->installed && can_crop(cinfo)) {
    crop_columns(self, window);
    skip_rows(self, window);
  } else {
    window->left = window->top = 0;
    window->width = cinfo->output_width;
    window->height = cinfo->output_height;
  }
  return TG_OK;
}

int tg_jpeg_start(tg_jpeg *self, int max_scans, tg_jpeg_window *window)
{
  self->max_scans = max_scans;
  return guarded(self, start, window);
}

typedef struct {
  unsigned char *out;
  size_t stride;
  unsigned int count;
} row_block;

static int read_rows(tg_jpeg *self, void *arguments)
{
  const row_block *rows = arguments;
  for (unsigned int done = 0; done < rows->count; done++) {
    JSAMPROW row = rows->out + (size_t)done * rows->stride;
    if (jpeg_read_scanlines(&self->cinfo, &row, 1) != 1) return TG_TRUNCATED;
  }
  return TG_OK;
}

/* Writes the next `count` rows at `out`, `stride` bytes apart. */
int tg_jpeg_read_rows(tg_jpeg *self, unsigned char *out, size_t stride, unsigned int count)
{
  row_block rows = { out, stride, count };
  return guarded(self, read_rows, &rows);
}

static int finish(tg_jpeg *self, void *arguments)
{
  (void)arguments;
  if (self->installed) {
    /* Rows below the window are decoded as well: a file is accepted or rejected as a whole. An intact scan ends at the
     * EOI marker. */
    tg_huffman_drain(self);
    return TG_OK;
  }
  return jpeg_finish_decompress(&self->cinfo) ? TG_OK : TG_TRUNCATED;
}

/* Reads on to the EOI marker, without which a file counts as truncated. */
int tg_jpeg_finish(tg_jpeg *self) { return guarded(self, finish, NULL); }

unsigned int tg_jpeg_warnings(const tg_jpeg *self)
{
  return self->err.num_warnings < 0 ? 0u : (unsigned int)self->err.num_warnings;
}

const char *tg_jpeg_message(const tg_jpeg *self) { return self->message; }

/* Declared in a private header of libjpeg. Without SIMD code the library has a stub of it that returns 0. */
EXTERN(int) jsimd_can_idct_islow(void);

/* libjpeg's own condition for its SIMD inverse DCT. */
int tg_jpeg_simd(void) { return jsimd_can_idct_islow() != 0; }
