/* Vectors of one instruction set: SPARSEC_ISA names it, SPARSEC_BYTES is the size of its vectors. */
#ifndef SPARSEC_VECTOR_H
#define SPARSEC_VECTOR_H

#include "kernels.h"

#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
/* The name of a function that every instruction set has its own of. */
#define NAME(kernel) JOIN(sparsec_##kernel, _f32_, SPARSEC_ISA)
#define SIZE(kernel) JOIN(sparsec_##kernel, _f32_bytes_, SPARSEC_ISA)
#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = SPARSEC_BYTES / 4, /* floats in a vector */
    LINE = 16,                 /* floats to which rows are padded */
};

/* Whether there are 32 registers for vectors, rather than 16. */
#if SPARSEC_BYTES == 64 || defined(__ARM_NEON)
#define WIDE 1
#else
#define WIDE 0
#endif

#define SPARSEC_ENTRY(kernel) \
    sparsec_run_step NAME(kernel); \
    sparsec_count_bytes SIZE(kernel);
SPARSEC_KERNELS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY

/* Memory is read and written without regard to alignment, which costs nothing where it is aligned. */
typedef float vec __attribute__((vector_size(SPARSEC_BYTES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(SPARSEC_BYTES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t places4 __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (places4){i, j, k, l})
#endif

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
INLINE int64_t positions(const sparsec_value *v) { return (int64_t)v->samples * v->height * v->width; }
INLINE float *row_of(const sparsec_value *v, float *const *memory, int64_t row) {
    return memory[v->base] + v->offset + row * v->pitch;
}

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec splat(float value) { return value - (vec){0}; }
/* Four floats, again and again. */
INLINE vec load_fours(const float *from) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_broadcast_f32x4(_mm_loadu_ps(from));
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_broadcast_ps((const __m128 *)from);
#else
    return load(from);
#endif
}

/* One of them in all lanes. */
INLINE vec pick(vec fours, const int which) {
#if SPARSEC_BYTES == 64
#define PICK(i) (vec)_mm512_permute_ps((__m512)fours, 0x55 * i)
#elif SPARSEC_BYTES == 32
#define PICK(i) (vec)_mm256_permute_ps((__m256)fours, 0x55 * i)
#else
#define PICK(i) (vec)SHUFFLE((quad)fours, (quad)fours, i, i, i, i)
#endif
    return which == 0 ? PICK(0) : which == 1 ? PICK(1) : which == 2 ? PICK(2) : PICK(3);
#undef PICK
}

/* mask ? a : b, where the lanes of a mask are all ones or zero */
INLINE vec choose(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* Of two values of which one is not a number, these return the second. */
INLINE vec vmax(vec a, vec b) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return choose((ivec)(a > b), a, b);
#endif
}

INLINE vec vmin(vec a, vec b) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vec)_mm_min_ps((__m128)a, (__m128)b);
#else
    return choose((ivec)(a < b), a, b);
#endif
}

/* The greater; of two values of which one is not a number, that. */
INLINE vec maximum(vec a, vec b) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_mask_mov_ps((__m512)vmax(a, b), _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q), (__m512)a);
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_blendv_ps((__m256)vmax(a, b), (__m256)a, _mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q));
#else
    return choose(a != a, a, vmax(a, b));
#endif
}

INLINE vec vclamp(vec value, vec low, vec high) { return vmin(high, vmax(low, value)); }

/*
 * Half a vector. Where a processor computes with its widest vectors in two steps, the second half of a last vector need not be
 * computed if nothing stands there. Other instruction sets know no halves.
 */
#if SPARSEC_BYTES == 64
enum { HALVES = 1 };
typedef float half __attribute__((vector_size(32), aligned(4), may_alias));
INLINE half first_half(vec value) { return (half)_mm512_castps512_ps256((__m512)value); }
/* A vector of which this is the first half; the second is of no meaning. */
INLINE vec with_half(half value) { return (vec)_mm512_castps256_ps512((__m256)value); }
INLINE half clamp_half(half value, half low, half high) {
    return (half)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)low, (__m256)value));
}
#else
enum { HALVES = 0 };
typedef vec half;
INLINE half first_half(vec value) { return value; }
INLINE vec with_half(half value) { return value; }
INLINE half clamp_half(half value, half low, half high) { return vclamp(value, low, high); }
#endif

/* Comparisons with a value that is not a number are false, so it stays. */
INLINE float clamp(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* The sum of all lanes: those of the second half are added to those of the first until one is left. */
INLINE float total(vec value) {
    quad sum = *(const quad *)&value;
#if SPARSEC_BYTES == 64
    const half sums = (half)_mm512_castps512_ps256((__m512)value) + (half)_mm512_extractf64x4_pd((__m512d)value, 1);
    sum = (quad)_mm256_castps256_ps128((__m256)sums) + (quad)_mm256_extractf128_ps((__m256)sums, 1);
#elif SPARSEC_BYTES == 32
    sum += (quad)_mm256_extractf128_ps((__m256)value, 1);
#endif
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

#if SPARSEC_BYTES == 64
typedef __mmask16 lanes;
/* Lanes first <= i < stop. */
INLINE lanes lanes_of(int first, int stop) {
    const uint32_t to = stop >= LANES ? 0xffffu : stop <= 0 ? 0 : (1u << stop) - 1;
    const uint32_t from = first <= 0 ? 0 : first >= LANES ? 0xffffu : (1u << first) - 1;
    return (lanes)(to & ~from);
}
INLINE vec load_lanes(const float *from, lanes which) { return (vec)_mm512_maskz_loadu_ps(which, from); }
INLINE void store_lanes(float *to, vec value, lanes which) { _mm512_mask_storeu_ps(to, which, (__m512)value); }
#elif SPARSEC_BYTES == 32
typedef __m256i lanes;
INLINE lanes lanes_of(int first, int stop) {
    const __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(
        _mm256_cmpgt_epi32(_mm256_set1_epi32(first), i), _mm256_cmpgt_epi32(_mm256_set1_epi32(stop), i)
    );
}
INLINE vec load_lanes(const float *from, lanes which) { return (vec)_mm256_maskload_ps(from, which); }
INLINE void store_lanes(float *to, vec value, lanes which) {
    /* Some processors take many times as long to store some lanes as to store all. */
    if (_mm256_movemask_ps((__m256)which) == 0xff) store(to, value);
    else _mm256_maskstore_ps(to, which, (__m256)value);
}
#else
typedef struct {
    int first, stop;
} lanes;
INLINE lanes lanes_of(int first, int stop) { return (lanes){most(first, 0), least(stop, LANES)}; }
INLINE vec load_lanes(const float *from, lanes which) {
    vec value = {0};
    if (which.first == 0 && which.stop == LANES) return load(from);
    for (int i = which.first; i < which.stop; i++) value[i] = from[i];
    return value;
}
INLINE void store_lanes(float *to, vec value, lanes which) {
    if (which.first == 0 && which.stop == LANES) store(to, value);
    else for (int i = which.first; i < which.stop; i++) to[i] = value[i];
}
#endif

/* Where a line of a tile goes in a row of the output. */
typedef struct {
    int32_t place;
    lanes which;
} line_place;

/* The lanes whose bits are set; others are zero, and are not read. */
INLINE vec load_bits(const float *from, uint16_t bits) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_maskz_loadu_ps(bits, from);
#else
    if (bits == (1u << LANES) - 1) return load(from);
#if SPARSEC_BYTES == 32
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return (vec)_mm256_maskload_ps(from, _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), each), each));
#else
    vec value = {0};
    for (int i = 0; i < LANES; i++) {
        if (bits >> i & 1) value[i] = from[i];
    }
    return value;
#endif
#endif
}

/* The lanes of even number, of a and then of b. */
INLINE vec evens(vec a, vec b) {
#if SPARSEC_BYTES == 64
    const __m512i places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return (vec)_mm512_permutex2var_ps((__m512)a, places, (__m512)b);
#elif SPARSEC_BYTES == 32
    const __m256 mixed = _mm256_shuffle_ps((__m256)a, (__m256)b, _MM_SHUFFLE(2, 0, 2, 0));
    return (vec)_mm256_permutevar8x32_ps(mixed, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
#else
    return (vec)SHUFFLE((quad)a, (quad)b, 0, 2, 4, 6);
#endif
}

/* The lanes of odd number, of a and then of b. */
INLINE vec odds(vec a, vec b) {
#if SPARSEC_BYTES == 64
    const __m512i places = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return (vec)_mm512_permutex2var_ps((__m512)a, places, (__m512)b);
#elif SPARSEC_BYTES == 32
    const __m256 mixed = _mm256_shuffle_ps((__m256)a, (__m256)b, _MM_SHUFFLE(3, 1, 3, 1));
    return (vec)_mm256_permutevar8x32_ps(mixed, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
#else
    return (vec)SHUFFLE((quad)a, (quad)b, 1, 3, 5, 7);
#endif
}

/* Lane i is lane places[i] of a and then b, as if they were one vector; where there is no such instruction, there is no need. */
#if SPARSEC_BYTES == 64
enum { PICKS = 1 };
INLINE vec pick_lanes(vec a, vec b, ivec places) {
    return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)places, (__m512)b);
}
#else
enum { PICKS = 0 };
INLINE vec pick_lanes(vec a, vec b, ivec places) {
    (void)b, (void)places;
    return a;
}
#endif

/* ---- what every kernel does to the rows that it has computed ---------------------------------------------------------- */

/* Applies the clamp and the posts of a step to positions first <= i < first + count of a row of y. */
void NAME(finish)(const sparsec_step *s, float *const *memory, int64_t row, int64_t first, int64_t count);
/* Applies the posts alone. */
void NAME(post)(const sparsec_step *s, float *const *memory, int64_t row, int64_t first, int64_t count);
/* The same for several rows from `row` on; padding between them may be changed. */
void NAME(post_rows)(const sparsec_step *s, float *const *memory, int64_t row, int64_t rows, int64_t first, int64_t count);
/* Applies clamp and posts to rows first <= row < stop of y, which has one position. */
void NAME(finish_vector)(const sparsec_step *s, float *const *memory, int64_t first, int64_t stop);

/* Applies a function whose operand, if it has one, is the number a. */
void NAME(apply)(int function, float a, float b, float *y, int64_t count);

/* Whether the clamp does something. */
INLINE int clamps(const sparsec_step *s) { return s->low > -__builtin_inff() || s->high < __builtin_inff(); }

/* Whether there is anything for finish to do. */
INLINE int finishes(const sparsec_step *s) { return s->posts > 0 || clamps(s); }

/* The share of `count` things that part `part` of `parts` takes: begin <= i < end. A division takes long beside a small step. */
INLINE int64_t share(int64_t count, int part, int parts) { return parts == 1 ? count * part : count * part / parts; }

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

/* Hands out parts of the scratch memory; with no memory it counts how much is needed. */
typedef struct {
    char *memory;
    int64_t used;
} arena;

INLINE void *take(arena *from, int64_t bytes) {
    void *part = from->memory ? from->memory + from->used : NULL;
    from->used += round_up(bytes, 64) + 64;
    return part;
}

#endif
