/* libjpeg-turbo's islow inverse DCT as its SSE2 assembly computes it, for builds without that assembly (no nasm).
 *
 * On sound files libjpeg's C code gives the same pixels. On corrupt ones it does not: where coefficients overflow, the
 * assembly, which Pillow's builds use, wraps and saturates in 16 bits, and what is accepted must decode to the same bits
 * everywhere. SSE2 belongs to every x86-64 processor. On others libjpeg's own code stays in charge.
 *
 * Written after simd/x86_64/jidctint-sse2.asm of libjpeg-turbo (zlib licence), Copyright 2009 Pierre Ossman for Cendio AB,
 * Copyright (C) 2009, 2016, 2020 D. R. Commander, (C) 2018 Matthias Räncker, (C) 1999-2006 MIYASAKA Masaru.
 */
#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>

#include "idct_sse2.h"

#if defined(__SSE2__) && !defined(WITH_SIMD)

#include <emmintrin.h>

/* Constants in fixed point with 13 fraction bits, named as in jidctint.c. */
enum {
  CONST_BITS = 13,
  PASS1_BITS = 2,
  FIX_0_298 = 2446,
  FIX_0_390 = 3196,
  FIX_0_541 = 4433,
  FIX_0_765 = 6270,
  FIX_0_899 = 7373,
  FIX_1_175 = 9633,
  FIX_1_501 = 12299,
  FIX_1_847 = 15137,
  FIX_1_961 = 16069,
  FIX_2_053 = 16819,
  FIX_2_562 = 20995,
  FIX_3_072 = 25172
};

/* Eight 32-bit numbers: lanes 0-3 and 4-7. */
typedef struct {
  __m128i low, high;
} wide;

/* a[i] * ca + b[i] * cb */
static wide dot(__m128i a, __m128i b, short ca, short cb)
{
  __m128i factors = _mm_set_epi16(cb, ca, cb, ca, cb, ca, cb, ca);
  wide sum = { _mm_madd_epi16(_mm_unpacklo_epi16(a, b), factors), _mm_madd_epi16(_mm_unpackhi_epi16(a, b), factors) };
  return sum;
}

/* a[i] << CONST_BITS */
static wide scaled(__m128i a)
{
  __m128i zero = _mm_setzero_si128();
  wide out = { _mm_srai_epi32(_mm_unpacklo_epi16(zero, a), 16 - CONST_BITS),
               _mm_srai_epi32(_mm_unpackhi_epi16(zero, a), 16 - CONST_BITS) };
  return out;
}

static wide add(wide a, wide b)
{
  wide sum = { _mm_add_epi32(a.low, b.low), _mm_add_epi32(a.high, b.high) };
  return sum;
}

static wide sub(wide a, wide b)
{
  wide difference = { _mm_sub_epi32(a.low, b.low), _mm_sub_epi32(a.high, b.high) };
  return difference;
}

/* Rounds `shift` bits away and saturates to 16 bits. */
static __m128i descale(wide a, int shift)
{
  __m128i half = _mm_set1_epi32(1 << (shift - 1)), count = _mm_cvtsi32_si128(shift);
  return _mm_packs_epi32(_mm_sra_epi32(_mm_add_epi32(a.low, half), count),
                         _mm_sra_epi32(_mm_add_epi32(a.high, half), count));
}

/* The one-dimensional transform of eight columns at once: v[k] holds coefficient k of all columns. */
static void transform(__m128i v[8], int shift)
{
  /* Even part. */
  wide tmp3 = dot(v[2], v[6], FIX_0_541 + FIX_0_765, FIX_0_541);
  wide tmp2 = dot(v[2], v[6], FIX_0_541, FIX_0_541 - FIX_1_847);
  wide tmp0 = scaled(_mm_add_epi16(v[0], v[4]));
  wide tmp1 = scaled(_mm_sub_epi16(v[0], v[4]));
  wide tmp10 = add(tmp0, tmp3), tmp13 = sub(tmp0, tmp3), tmp11 = add(tmp1, tmp2), tmp12 = sub(tmp1, tmp2);
  /* Odd part. */
  __m128i sum3 = _mm_add_epi16(v[3], v[7]), sum4 = _mm_add_epi16(v[1], v[5]);
  wide z3 = dot(sum3, sum4, FIX_1_175 - FIX_1_961, FIX_1_175);
  wide z4 = dot(sum3, sum4, FIX_1_175, FIX_1_175 - FIX_0_390);
  wide odd0 = add(dot(v[7], v[1], FIX_0_298 - FIX_0_899, -FIX_0_899), z3);
  wide odd3 = add(dot(v[7], v[1], -FIX_0_899, FIX_1_501 - FIX_0_899), z4);
  wide odd1 = add(dot(v[5], v[3], FIX_2_053 - FIX_2_562, -FIX_2_562), z4);
  wide odd2 = add(dot(v[5], v[3], -FIX_2_562, FIX_3_072 - FIX_2_562), z3);
  v[0] = descale(add(tmp10, odd3), shift);
  v[7] = descale(sub(tmp10, odd3), shift);
  v[1] = descale(add(tmp11, odd2), shift);
  v[6] = descale(sub(tmp11, odd2), shift);
  v[2] = descale(add(tmp12, odd1), shift);
  v[5] = descale(sub(tmp12, odd1), shift);
  v[3] = descale(add(tmp13, odd0), shift);
  v[4] = descale(sub(tmp13, odd0), shift);
}

static void transpose(__m128i v[8])
{
  __m128i a[8], b[8];
  int i;
  for (i = 0; i < 4; i++) {
    a[2 * i] = _mm_unpacklo_epi16(v[i], v[i + 4]);
    a[2 * i + 1] = _mm_unpackhi_epi16(v[i], v[i + 4]);
  }
  for (i = 0; i < 4; i++) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (i = 0; i < 4; i++) {
    v[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
    v[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
  }
}

/* The low 16 bits of eight multipliers, which libjpeg keeps as ints in such a build. */
static __m128i multipliers(const int *at)
{
  __m128i a = _mm_loadu_si128((const __m128i *)at), b = _mm_loadu_si128((const __m128i *)(at + 4));
  return _mm_packs_epi32(_mm_srai_epi32(_mm_slli_epi32(a, 16), 16), _mm_srai_epi32(_mm_slli_epi32(b, 16), 16));
}

/* A jpeg_idct_method. */
static void inverse_dct(j_decompress_ptr cinfo, jpeg_component_info *component, JCOEFPTR block, JSAMPARRAY rows,
                        JDIMENSION column)
{
  const int *quant = (const int *)component->dct_table;
  __m128i v[8], ac;
  int i;
  (void)cinfo;
  for (i = 0; i < 8; i++) v[i] = _mm_loadu_si128((const __m128i *)(block + 8 * i));
  /* Coefficients other than the first row's. */
  ac = v[1];
  for (i = 2; i < 8; i++) ac = _mm_or_si128(ac, v[i]);
  for (i = 0; i < 8; i++) v[i] = _mm_mullo_epi16(v[i], multipliers(quant + 8 * i));
  if (_mm_movemask_epi8(_mm_cmpeq_epi16(ac, _mm_setzero_si128())) == 0xFFFF) {
    /* A short cut that differs from the transform in how it overflows: it wraps. */
    __m128i row = _mm_slli_epi16(v[0], PASS1_BITS);
    for (i = 0; i < 8; i++) v[i] = row;
  } else {
    transform(v, CONST_BITS - PASS1_BITS);
  }
  transpose(v);
  transform(v, CONST_BITS + PASS1_BITS + 3);
  transpose(v);
  for (i = 0; i < 8; i++) {
    __m128i samples = _mm_add_epi8(_mm_packs_epi16(v[i], v[i]), _mm_set1_epi8((char)CENTERJSAMPLE));
    _mm_storel_epi64((__m128i *)(rows[i] + column), samples);
  }
}

static void select_idct(j_decompress_ptr cinfo, jpeg_component_info *component, jpeg_idct_method *method, int *category)
{
  (void)cinfo;
  (void)component;
  (void)category; /* stays JDCT_ISLOW: the multipliers are the same */
  *method = inverse_dct;
}

void tg_use_exact_idct(j_decompress_ptr cinfo) { jpeg_set_idct_method_selector(cinfo, select_idct); }

#else

void tg_use_exact_idct(j_decompress_ptr cinfo) { (void)cinfo; }

#endif
