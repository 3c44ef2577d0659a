/* The elementwise operations that follow a kernel. */
#include "functions.h"
#include "vector.h"

/* The operand of an operation for some elements of y: they follow one another in memory, or are one number. */
typedef struct {
    const float *from;
    float number;
} operand;

#define SPARSEC_ENTRY(name, meaning) \
    static void to_##name(const sparsec_post *post, float *y, operand w, int64_t count) { \
        const float a = post->a, b = post->b; \
        const vec number = splat(w.number); \
        int64_t i = 0; \
        for (; i + LANES <= count; i += LANES) store(y + i, fn_##name(load(y + i), w.from ? load(w.from + i) : number, a, b)); \
        if (i < count) { \
            const lanes rest = lanes_of(0, (int)(count - i)); \
            const vec other = w.from ? load_lanes(w.from + i, rest) : number; \
            store_lanes(y + i, fn_##name(load_lanes(y + i, rest), other, a, b), rest); \
        } \
    }
SPARSEC_FUNCTIONS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY

static void apply_to(const sparsec_post *post, float *y, operand w, int64_t count) {
    switch (post->function) {
#define SPARSEC_ENTRY(name, meaning) \
    case SPARSEC_FN_##name: to_##name(post, y, w, count); break;
        SPARSEC_FUNCTIONS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY
    }
}

void NAME(apply)(int function, float a, float b, float *y, int64_t count) {
    const sparsec_post post = {.function = function, .a = a, .b = b};
    apply_to(&post, y, (operand){NULL, a}, count);
}

static void clamp_to(const sparsec_step *s, float *y, int64_t count) {
    const vec low = splat(s->low), high = splat(s->high);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(y + i, vclamp(load(y + i), low, high));
    for (; i < count; i++) y[i] = clamp(y[i], s->low, s->high);
}

/* A value with one position for each sample, over positions that may be those of several samples. */
static void apply_gate(
    const sparsec_step *s, const sparsec_post *post, const float *gate, float *y, int64_t first, int64_t count
) {
    const int64_t plane = (int64_t)s->y.height * s->y.width;
    for (int64_t sample = first / plane; count > 0; sample++) {
        const int64_t room = (sample + 1) * plane - first, n = room < count ? room : count;
        apply_to(post, y, (operand){NULL, gate[sample]}, n);
        y += n;
        first += n;
        count -= n;
    }
}

void NAME(post)(const sparsec_step *s, float *const *memory, int64_t row, int64_t first, int64_t count) {
    float *y = row_of(&s->y, memory, row) + first;
    for (int i = 0; i < s->posts; i++) {
        const sparsec_post *post = s->post + i;
        switch (post->operand) {
            case SPARSEC_NUMBER: apply_to(post, y, (operand){NULL, post->a}, count); break;
            case SPARSEC_CHANNEL: apply_to(post, y, (operand){NULL, post->channel[row]}, count); break;
            case SPARSEC_VALUE: apply_to(post, y, (operand){row_of(&post->value, memory, row) + first, 0}, count); break;
            default: apply_gate(s, post, row_of(&post->value, memory, row), y, first, count);
        }
    }
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
        operand w = {NULL, post->a};
        if (post->operand == SPARSEC_CHANNEL) w.from = post->channel + first;
        else if (post->operand != SPARSEC_NUMBER) {
            w.from = row_of(&post->value, memory, first);
            if (post->value.pitch == 0) w = (operand){NULL, *w.from};
        }
        apply_to(post, y, w, count);
    }
}
