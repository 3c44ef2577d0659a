/* The elementwise operations that follow a kernel. */
#include "functions.h"
#include "logic.h"

/* Some elements of some rows of y. */
typedef struct {
    float *y;
    int64_t rows, pitch, count;
} region;

/* The operand of an operation: elements that lie as those of y do, or else a number for each row. */
typedef struct {
    const float *from, *numbers;
    int64_t pitch; /* floats from what a row meets to what the next does */
} operand;

/* All rows are computed by one loop, since the first of its results comes long after it begins. */
#define SPARSEC_ENTRY(name, meaning) \
    static void to_##name(const sparsec_post *post, const region *of, const operand *w) { \
        const float a = post->a, b = post->b; \
        const int64_t rows = of->rows, pitch = of->pitch, count = of->count, step = w->pitch; \
        const float *from = w->from, *numbers = w->numbers; \
        float *y = of->y; \
        for (int64_t row = 0; row < rows; row++, y += pitch) { \
            const vec number = from ? (vec){0} : splat(numbers[row * step]); \
            int64_t i = 0; \
            for (; i + LANES <= count; i += LANES) store(y + i, fn_##name(load(y + i), from ? load(from + i) : number, a, b)); \
            if (i < count) { \
                const lanes rest = lanes_of(0, (int)(count - i)); \
                const vec other = from ? load_lanes(from + i, rest) : number; \
                store_lanes(y + i, fn_##name(load_lanes(y + i, rest), other, a, b), rest); \
            } \
            if (from) from += step; \
        } \
    }
SPARSEC_FUNCTIONS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY

#if SPARSEC_BYTES == 64
/* tanh of the first elements of every row, many at a time; how many of each row are done. */
static int64_t begin_tanh(const region *of) {
    const int64_t done = of->count - of->count % (TANH_TOGETHER * LANES);
    for (int64_t row = 0; row < of->rows; row++) {
        float *y = of->y + row * of->pitch;
        for (int64_t i = 0; i < done; i += TANH_TOGETHER * LANES) {
            vec v[TANH_TOGETHER];
#pragma GCC unroll 4
            for (int k = 0; k < TANH_TOGETHER; k++) v[k] = load(y + i + k * LANES);
            hyperbolic_of(TANH_TOGETHER, v);
#pragma GCC unroll 4
            for (int k = 0; k < TANH_TOGETHER; k++) store(y + i + k * LANES, v[k]);
        }
    }
    return done;
}
#endif

static void apply_to(const sparsec_post *post, const region *given, const operand *w) {
    region rest = *given;
    const region *of = &rest;
#if SPARSEC_BYTES == 64
    if (post->function == SPARSEC_FN_tanh) {
        const int64_t done = begin_tanh(given);
        rest.y += done;
        rest.count -= done;
        if (!rest.count) return;
    }
#endif
    switch (post->function) {
#define SPARSEC_ENTRY(name, meaning) \
    case SPARSEC_FN_##name: to_##name(post, of, w); break;
        SPARSEC_FUNCTIONS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY
    }
}

void NAME(apply)(int function, float a, float b, float *y, int64_t count) {
    const sparsec_post post = {.function = function, .a = a, .b = b};
    apply_to(&post, &(region){y, 1, count, count}, &(operand){.numbers = &post.a});
}

static void clamp_to(const sparsec_step *s, float *y, int64_t count) {
    const vec low = splat(s->low), high = splat(s->high);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(y + i, vclamp(load(y + i), low, high));
    for (; i < count; i++) y[i] = clamp(y[i], s->low, s->high);
}

/* A value with one position for each sample, over positions from `first` on that may be those of several samples. */
static void apply_gate(const sparsec_step *s, const sparsec_post *post, const float *gate, const region *given, int64_t first) {
    const int64_t plane = (int64_t)s->y.height * s->y.width, end = first + given->count;
    region of = *given;
    for (int64_t sample = first / plane; first < end; sample++) {
        const int64_t stop = (sample + 1) * plane < end ? (sample + 1) * plane : end;
        of.count = stop - first;
        apply_to(post, &of, &(operand){.numbers = gate + sample, .pitch = post->value.pitch});
        of.y += of.count;
        first = stop;
    }
}

void NAME(post_rows)(const sparsec_step *s, float *const *memory, int64_t row, int64_t rows, int64_t first, int64_t count) {
    const region of = {row_of(&s->y, memory, row) + first, rows, s->y.pitch, count};
    /* Whole rows become one, since what is between them is padding. */
    const region joined = {of.y, 1, of.pitch, (rows - 1) * of.pitch + count};
    const int whole = count == positions(&s->y) && of.pitch - count < LINE;
    for (int i = 0; i < s->posts; i++) {
        const sparsec_post *post = s->post + i;
        const float *value = post->operand >= SPARSEC_VALUE ? row_of(&post->value, memory, row) : NULL;
        switch (post->operand) {
            case SPARSEC_NUMBER:
                apply_to(post, whole ? &joined : &of, &(operand){.numbers = &post->a});
                break;
            case SPARSEC_CHANNEL: apply_to(post, &of, &(operand){.numbers = post->channel + row, .pitch = 1}); break;
            case SPARSEC_VALUE: apply_to(post, &of, &(operand){.from = value + first, .pitch = post->value.pitch}); break;
            default: apply_gate(s, post, value, &of, first);
        }
    }
}

void NAME(post)(const sparsec_step *s, float *const *memory, int64_t row, int64_t first, int64_t count) {
    NAME(post_rows)(s, memory, row, 1, first, count);
}

void NAME(finish)(const sparsec_step *s, float *const *memory, int64_t row, int64_t first, int64_t count) {
    clamp_to(s, row_of(&s->y, memory, row) + first, count);
    NAME(post)(s, memory, row, first, count);
}

void NAME(finish_vector)(const sparsec_step *s, float *const *memory, int64_t first, int64_t stop) {
    float *y = row_of(&s->y, memory, first);
    const int64_t count = stop - first;
    clamp_to(s, y, count);
    for (int i = 0; i < s->posts; i++) {
        const sparsec_post *post = s->post + i;
        operand w = {.numbers = &post->a};
        if (post->operand == SPARSEC_CHANNEL) w.from = post->channel + first;
        else if (post->operand != SPARSEC_NUMBER) {
            w.from = row_of(&post->value, memory, first);
            if (post->value.pitch == 0) w = (operand){.numbers = w.from};
        }
        apply_to(post, &(region){y, 1, count, count}, &w);
    }
}
