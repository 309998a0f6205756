/* Declarations that the parts of the shim share. */
#ifndef TG_JPEG_SHIM_H
#define TG_JPEG_SHIM_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Opens libjpeg's interfaces between its own modules: the entropy decoder is one of them. */
#define JPEG_INTERNALS
#include <jpeglib.h>

/* Statuses; decode/jpeg.rs has the same numbers. */
enum { TG_OK = 0, TG_TRUNCATED = 1, TG_BROKEN = 2, TG_TOO_MANY_SCANS = 3, TG_UNSOUND = 4 };

/* Bits of an index into a table of codes. */
enum { TG_LOOK_BITS = 10 };

/* A Huffman code, laid out for decoding. */
typedef struct {
  /* By the next TG_LOOK_BITS bits; see huffman.c. */
  int32_t look[1 << TG_LOOK_BITS];
  /* By length: the largest code, -1 where there is none, and the index in `symbols` minus the code. */
  int32_t max_code[17];
  int32_t offset[17];
  uint8_t symbols[256];
} tg_code;

/* Bits still to be decoded. */
typedef struct {
  const uint8_t *next; /* the first byte of which not all is in `bits` */
  const uint8_t *end;
  uint64_t bits; /* the next bits, from the most significant on */
  int left;      /* how many of them there are; negative: more were consumed than exist */
} tg_bits;

/* The entropy decoder of huffman.c. */
typedef struct {
  tg_bits in;
  int32_t last_dc[MAX_COMPS_IN_SCAN];
  unsigned int restart_to_go; /* MCUs before the next restart marker */
  unsigned int next_restart;  /* its number, 0 to 7 */
  uint64_t mcus_to_go;        /* in the scan */
  tg_code dc[NUM_HUFF_TBLS];
  tg_code ac[NUM_HUFF_TBLS];
  const tg_code *block_dc[D_MAX_BLOCKS_IN_MCU]; /* of the blocks of an MCU */
  const tg_code *block_ac[D_MAX_BLOCKS_IN_MCU];
  JBLOCK unused; /* receives coefficients that are not needed */
} tg_huffman;

typedef struct {
  struct jpeg_decompress_struct cinfo;
  struct jpeg_error_mgr err;
  struct jpeg_source_mgr src;
  struct jpeg_progress_mgr progress;
  jmp_buf trap;
  int created;
  int max_scans;
  int installed; /* whether huffman.c is the entropy decoder */
  int failure;   /* the status of the current longjmp */
  char message[JMSG_LENGTH_MAX];
  tg_huffman huffman;
} tg_jpeg;

/* Leaves the guarded step with `status`; does not return. */
void tg_fail(tg_jpeg *self, int status);

/* Whether huffman.c can decode the scan that was started. */
int tg_huffman_takes(const tg_jpeg *self);
/* Replaces libjpeg's entropy decoder, before the first MCU is decoded. */
void tg_huffman_install(tg_jpeg *self);
/* Decodes the rest of the scan, only to check whether it is intact. */
void tg_huffman_drain(tg_jpeg *self);

#endif
