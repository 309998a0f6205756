/* A decoder of intact sequential Huffman scans, which replaces libjpeg's own.
 *
 * Half of the time of decoding a photograph goes into this step. Here one table lookup gives run, value and length of
 * most coefficients at once. It decodes intact data only: at the first sign of anything else (a code that is not in the
 * table, a marker or the end of the data before the last MCU, a restart marker at a wrong position, bytes between
 * the last MCU and the EOI marker) it returns TG_UNSOUND, and the caller decodes the file again, with libjpeg alone.
 * What damaged data decodes to, which warnings it causes and whether it is accepted is therefore never decided here.
 *
 * An entry of `look` has in its low five bits the number of bits to consume. With VALUE these are a code and the bits after
 * it: the byte above has the zero coefficients to skip, and the upper half the coefficient (DC: the difference). With SYMBOL
 * they are a code whose symbol is the byte above. An entry of 0 stands for codes of more than TG_LOOK_BITS bits.
 */
#include <string.h>

#include "jpeg_shim.h"

enum {
  TAKE = 31,
  VALUE = 32,
  SYMBOL = 64,
  /* No code takes more, and neither does a value. */
  ENOUGH_BITS = 16
};

/* The state of the bits must stay in registers: functions that are called for every coefficient are inlined, rarely called
 * ones take the state by value. */
#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define SELDOM static __attribute__((noinline))
#else
#define ALWAYS_INLINE static inline
#define SELDOM static
#endif

/* From an index in zigzag order to the index in the block. A run may pass the end; libjpeg stores that coefficient last. */
static const uint8_t natural_order[DCTSIZE2 + 16] = {
  0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
  6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31,
  39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63
};

/* The number that `size` bits after a code stand for: the lower half of them are the negative ones. */
static int32_t extended(uint32_t bits, int size)
{
  int32_t value = (int32_t)bits;
  return bits < 1u << (size - 1) ? value - (int32_t)(1u << size) + 1 : value;
}

/* Entries for all bits that begin with `code`, `length` of them, which stands for `symbol`. */
static void look_up(tg_code *table, uint32_t code, int length, uint8_t symbol, int is_dc)
{
  int free_bits = TG_LOOK_BITS - length;
  int size = symbol & 15;
  int32_t *at = table->look + ((size_t)code << free_bits);
  for (uint32_t rest = 0; rest < 1u << free_bits; rest++) {
    uint32_t take = (uint32_t)length, value = 0, above = symbol;
    if (size > free_bits || (size == 0 && !is_dc)) {
      take |= SYMBOL;
    } else {
      if (size > 0) value = (uint32_t)extended(rest >> (free_bits - size), size);
      take += (uint32_t)size;
      take |= VALUE;
      above = symbol >> 4;
    }
    at[rest] = (int32_t)(take | above << 8 | value << 16);
  }
}

/* libjpeg has checked the code: lengths are those of a prefix code, and there are at most 256 symbols. */
static void lay_out(tg_code *table, const JHUFF_TBL *from, int is_dc)
{
  memset(table->look, 0, sizeof table->look);
  memcpy(table->symbols, from->huffval, sizeof table->symbols);
  uint32_t code = 0;
  int place = 0;
  for (int length = 1; length <= 16; length++, code <<= 1) {
    int count = from->bits[length];
    table->offset[length] = place - (int32_t)code;
    table->max_code[length] = count ? (int32_t)(code + (uint32_t)count - 1) : -1;
    for (int i = 0; i < count; i++, code++, place++)
      if (length <= TG_LOOK_BITS) look_up(table, code, length, table->symbols[place], is_dc);
  }
}

int tg_huffman_takes(const tg_jpeg *self)
{
  const struct jpeg_decompress_struct *cinfo = &self->cinfo;
  return !cinfo->arith_code && !cinfo->progressive_mode && !cinfo->inputctl->has_multiple_scans &&
         cinfo->data_precision == 8;
}

/* Reads bytes one by one, up to a marker or the end. */
SELDOM tg_bits refilled_slowly(tg_bits in)
{
  while (in.left <= 56 && in.next < in.end) {
    uint8_t byte = *in.next;
    if (byte == 0xFF) {
      if (in.end - in.next < 2 || in.next[1] != 0) break;
      in.next++;
    }
    in.next++;
    /* The bits of this byte that are already present are the same. */
    in.bits |= (uint64_t)byte << (56 - in.left);
    in.left += 8;
  }
  return in;
}

/* In this form, compilers recognise a load and a byte swap. */
ALWAYS_INLINE uint64_t eight_bytes(const uint8_t *at)
{
  return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 |
         (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | (uint64_t)at[7];
}

ALWAYS_INLINE int has_ff(uint64_t word)
{
  const uint64_t ones = 0x0101010101010101u;
  return ((~word - ones) & word & (ones << 7)) != 0;
}

/* Fills `bits` with as many bits as are available. False: more were consumed than existed. */
ALWAYS_INLINE int refill(tg_bits *in)
{
  if (in->left < 0) return 0;
  if (in->end - in->next >= 8) {
    uint64_t word = eight_bytes(in->next);
    if (!has_ff(word)) {
      in->bits |= word >> in->left;
      in->next += (63 - in->left) >> 3;
      in->left |= 56;
      return 1;
    }
  }
  *in = refilled_slowly(*in);
  return 1;
}

ALWAYS_INLINE void take(tg_bits *in, int count)
{
  in->bits <<= count;
  in->left -= count;
}

/* The symbol, and above it the length, of a code of more than TG_LOOK_BITS bits, with which `next` begins; -1 for none. */
SELDOM int long_code(const tg_code *table, uint64_t bits)
{
  int32_t next = (int32_t)(bits >> 48);
  for (int length = TG_LOOK_BITS + 1; length <= 16; length++) {
    int32_t code = next >> (16 - length);
    if (code <= table->max_code[length]) return length << 8 | table->symbols[(code + table->offset[length]) & 255];
  }
  return -1;
}

/* Consumes the code for which `look` has no value. Its symbol, or -1. */
ALWAYS_INLINE int take_symbol(tg_bits *in, const tg_code *table, int32_t found)
{
  if (found != 0) {
    take(in, found & TAKE);
    return found >> 8 & 255;
  }
  if (in->left < ENOUGH_BITS && !refill(in)) return -1;
  int code = long_code(table, in->bits);
  if (code < 0) return -1;
  take(in, code >> 8);
  return code & 255;
}

/* The value of `size` bits, 1 to 15. False: the data ends before. */
ALWAYS_INLINE int take_value(tg_bits *in, int size, int32_t *value)
{
  if (in->left < ENOUGH_BITS && !refill(in)) return 0;
  *value = extended((uint32_t)(in->bits >> (64 - size)), size);
  take(in, size);
  return 1;
}

/* The difference of a DC coefficient; false for unsound data. */
ALWAYS_INLINE int decode_dc(tg_bits *in, const tg_code *table, int32_t *difference)
{
  if (in->left < TG_LOOK_BITS && !refill(in)) return 0;
  int32_t found = table->look[in->bits >> (64 - TG_LOOK_BITS)];
  if (found & VALUE) {
    take(in, found & TAKE);
    *difference = found >> 16;
    return 1;
  }
  int size = take_symbol(in, table, found);
  *difference = 0;
  return size == 0 || (size > 0 && take_value(in, size, difference));
}

/* The AC coefficients of a block that was zero; false for unsound data. */
ALWAYS_INLINE int decode_ac(tg_bits *in, const tg_code *table, JCOEF *block)
{
  for (int k = 1; k < DCTSIZE2; k++) {
    if (in->left < TG_LOOK_BITS && !refill(in)) return 0;
    int32_t found = table->look[in->bits >> (64 - TG_LOOK_BITS)];
    if (found & VALUE) {
      take(in, found & TAKE);
      k += found >> 8 & 255;
      block[natural_order[k]] = (JCOEF)(found >> 16);
      continue;
    }
    int symbol = take_symbol(in, table, found);
    if (symbol < 0) return 0;
    k += symbol >> 4;
    if (symbol & 15) {
      int32_t value;
      if (!take_value(in, symbol & 15, &value)) return 0;
      block[natural_order[k]] = (JCOEF)value;
    } else if (symbol >> 4 != 15) {
      break;
    }
  }
  return 1;
}

/* Whether only fill bits precede a marker `code`; skips the marker. */
static int at_marker(tg_bits *in, unsigned int code)
{
  if (in->left < 0 || in->left >= 8 || in->end - in->next < 2) return 0;
  if (in->next[0] != 0xFF || in->next[1] != code) return 0;
  in->next += 2;
  in->bits = 0;
  in->left = 0;
  return 1;
}

static int restart(tg_huffman *h, const struct jpeg_decompress_struct *cinfo)
{
  if (!at_marker(&h->in, JPEG_RST0 + h->next_restart)) return 0;
  h->next_restart = (h->next_restart + 1) & 7;
  h->restart_to_go = cinfo->restart_interval;
  memset(h->last_dc, 0, sizeof h->last_dc);
  return 1;
}

static int decode_blocks(tg_huffman *h, const struct jpeg_decompress_struct *cinfo, JBLOCKROW *blocks)
{
  tg_bits in = h->in;
  for (int i = 0; i < cinfo->blocks_in_MCU; i++) {
    int member = cinfo->MCU_membership[i];
    JCOEF *block = blocks == NULL ? h->unused : blocks[i][0];
    int32_t difference;
    if (!decode_dc(&in, h->block_dc[i], &difference)) return 0;
    /* Damaged data may overflow: wrap, as libjpeg does. */
    h->last_dc[member] = (int32_t)((uint32_t)h->last_dc[member] + (uint32_t)difference);
    block[0] = (JCOEF)h->last_dc[member];
    if (!decode_ac(&in, h->block_ac[i], block)) return 0;
  }
  h->in = in;
  return in.left >= 0;
}

/* Positions libjpeg's source at the EOI marker. */
static int finish_scan(tg_jpeg *self)
{
  tg_huffman *h = &self->huffman;
  if (!at_marker(&h->in, JPEG_EOI)) return 0;
  self->src.next_input_byte = h->in.next - 2;
  self->src.bytes_in_buffer = (size_t)(h->in.end - h->in.next) + 2;
  return 1;
}

static int decode_one(tg_jpeg *self, JBLOCKROW *blocks)
{
  tg_huffman *h = &self->huffman;
  if (h->mcus_to_go == 0) return 0;
  if (self->cinfo.restart_interval) {
    if (h->restart_to_go == 0 && !restart(h, &self->cinfo)) return 0;
    h->restart_to_go--;
  }
  if (!decode_blocks(h, &self->cinfo, blocks)) return 0;
  return --h->mcus_to_go > 0 || finish_scan(self);
}

/* The function that libjpeg calls. `blocks` were zeroed; NULL: the coefficients are not needed. */
static boolean decode_mcu(j_decompress_ptr cinfo, JBLOCKROW *blocks)
{
  tg_jpeg *self = (tg_jpeg *)cinfo->client_data;
  if (!decode_one(self, blocks)) tg_fail(self, TG_UNSOUND);
  return TRUE;
}

void tg_huffman_install(tg_jpeg *self)
{
  struct jpeg_decompress_struct *cinfo = &self->cinfo;
  tg_huffman *h = &self->huffman;
  for (int i = 0; i < cinfo->comps_in_scan; i++) {
    const jpeg_component_info *component = cinfo->cur_comp_info[i];
    lay_out(&h->dc[component->dc_tbl_no], cinfo->dc_huff_tbl_ptrs[component->dc_tbl_no], 1);
    lay_out(&h->ac[component->ac_tbl_no], cinfo->ac_huff_tbl_ptrs[component->ac_tbl_no], 0);
  }
  for (int i = 0; i < cinfo->blocks_in_MCU; i++) {
    const jpeg_component_info *component = cinfo->cur_comp_info[cinfo->MCU_membership[i]];
    h->block_dc[i] = &h->dc[component->dc_tbl_no];
    h->block_ac[i] = &h->ac[component->ac_tbl_no];
  }
  h->in.next = self->src.next_input_byte;
  h->in.end = h->in.next + self->src.bytes_in_buffer;
  h->in.bits = 0;
  h->in.left = 0;
  h->next_restart = 0;
  h->restart_to_go = cinfo->restart_interval;
  h->mcus_to_go = (uint64_t)cinfo->MCUs_per_row * cinfo->MCU_rows_in_scan;
  memset(h->last_dc, 0, sizeof h->last_dc);
  cinfo->entropy->decode_mcu = decode_mcu;
}

void tg_huffman_drain(tg_jpeg *self)
{
  while (self->huffman.mcus_to_go > 0)
    if (!decode_one(self, NULL)) tg_fail(self, TG_UNSOUND);
}
