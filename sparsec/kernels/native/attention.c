/*
 * Scaled dot-product attention: for each head of each sample, and some of its queries at a time, the logits of all keys, whose
 * softmax then says how the values are mixed. A query is a column of all this.
 *
 *   x, residual, extra  queries, keys and values, the channels of one head after those of another
 *   mask                which keys a query may look at, [samples, heads, queries, keys], any of which but the samples may be 1
 *   options             heads of queries; heads of keys; 1 where a query looks at no key behind it; so far from it a key must
 *                       not be, or 0; 1 where a query that may look at no key gives 0, not the mean of all values
 *   numbers             what logits are multiplied by
 */
#include "functions.h"
#include "multiply.h"

enum {
    QUERIES = 64, /* that are computed at a time */
    BLOCK = 64,   /* keys whose terms are added up by themselves, so that the error of a sum stays small */
};

/* What stands for the logit of a key that must not be looked at: far below all others, and not infinite. */
#define LOWEST (-FLT_MAX / 2)

int64_t SIZE(attention)(const sparsec_step *s) { return (int64_t)sizeof(float) * QUERIES * s->residual.width; }

/* Some queries of one head. */
typedef struct {
    int sample, head, first, count;
} portion_of_queries;

/* The lanes in which a key may be looked at, by the queries from t on. */
INLINE ivec allowed(const sparsec_step *s, const portion_of_queries *q, const float *row, int key, int t, lanes which) {
    ivec result = ~(ivec){0};
    if (row) {
        const vec found = s->mask.width > 1 ? load_lanes(row + t, which) : splat(row[0]);
        result &= (ivec)(found != 0.0f);
    }
    if (!s->options[2] && !s->options[3]) return result;
    ivec distance;
    for (int i = 0; i < LANES; i++) distance[i] = q->first + t + i - key;
    if (s->options[2]) result &= (ivec)(distance >= 0);
    if (s->options[3]) result &= (ivec)(distance < s->options[3]) & (ivec)(distance > -s->options[3]);
    return result;
}

/* Scales the logits of a vector of queries, and gives the greatest of each. */
INLINE vec mask_logits(const sparsec_step *s, const portion_of_queries *q, const float *mask, float *logits, int t) {
    const int keys = s->residual.width, masks = mask || s->options[2] || s->options[3];
    const lanes which = lanes_of(0, q->count - t);
    const ptrdiff_t step = s->mask.channels > 1 ? s->mask.pitch : 0;
    vec greatest = splat(-__builtin_inff());
    for (int key = 0; key < keys; key++) {
        float *at = logits + (ptrdiff_t)key * QUERIES + t;
        vec logit = load(at) * s->numbers[0];
        if (masks) logit = choose(allowed(s, q, mask ? mask + key * step : NULL, key, t, which), logit, splat(LOWEST));
        store(at, logit);
        greatest = maximum(logit, greatest);
    }
    return greatest;
}

/* The softmax over the keys, for a vector of queries. */
INLINE void find_weights(const sparsec_step *s, const portion_of_queries *q, const float *mask, float *logits, int t) {
    const int keys = s->residual.width;
    const vec greatest = mask_logits(s, q, mask, logits, t);
    vec sum = {0};
    for (int first = 0; first < keys; first += BLOCK) {
        vec part = {0};
        for (int key = first; key < least(first + BLOCK, keys); key++) {
            float *at = logits + (ptrdiff_t)key * QUERIES + t;
            const vec term = exponential(load(at) - greatest);
            part += term;
            store(at, term);
        }
        sum += part;
    }
    vec factor = 1.0f / sum;
    if (s->options[4]) factor = choose(greatest == LOWEST, (vec){0}, factor);
    for (int key = 0; key < keys; key++) {
        float *at = logits + (ptrdiff_t)key * QUERIES + t;
        store(at, load(at) * factor);
    }
}

static const float *mask_of(const sparsec_step *s, float *const *memory, const portion_of_queries *q) {
    const sparsec_value *m = &s->mask;
    if (m->base < 0) return NULL;
    const int64_t row = (int64_t)q->sample * m->height + (m->height > 1 ? q->head : 0);
    return row_of(m, memory, 0) + row * m->width + (m->width > 1 ? q->first : 0);
}

static void attend(const sparsec_step *s, float *const *memory, float *logits, const portion_of_queries *q) {
    const int heads = s->options[0], groups = s->options[1], group = q->head / (heads / groups), keys = s->residual.width;
    const int depth = s->x.channels / heads, width = s->y.channels / heads;
    const int64_t at = (int64_t)q->sample * s->x.width + q->first, in_keys = (int64_t)q->sample * keys;
    factors f = {
        .a = row_of(&s->residual, memory, (int64_t)group * depth) + in_keys, .down = 1, .along = s->residual.pitch,
        .b = row_of(&s->x, memory, (int64_t)q->head * depth) + at, .pitch_b = s->x.pitch,
        .y = logits, .pitch_y = QUERIES, .depth = depth,
    };
    multiply(&f, 0, keys, q->count);
    const float *mask = mask_of(s, memory, q);
    for (int t = 0; t < q->count; t += LANES) find_weights(s, q, mask, logits, t);
    f = (factors){
        .a = row_of(&s->extra, memory, (int64_t)group * width) + in_keys, .down = s->extra.pitch, .along = 1,
        .b = logits, .pitch_b = QUERIES,
        .y = row_of(&s->y, memory, (int64_t)q->head * width) + at, .pitch_y = s->y.pitch, .depth = keys,
    };
    multiply(&f, 0, width, q->count);
    if (!finishes(s)) return;
    const int64_t row = (int64_t)q->head * width;
    if (s->y.pitch == 1) NAME(finish_vector)(s, memory, row, row + width);
    else for (int64_t i = row; i < row + width; i++) NAME(finish)(s, memory, i, at, q->count);
}

void NAME(attention)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const int heads = s->options[0], queries = s->x.width, tiles = (queries + QUERIES - 1) / QUERIES;
    const int64_t all = (int64_t)s->x.samples * heads * tiles, end = share(all, part + 1, parts);
    for (int64_t i = share(all, part, parts); i < end; i++) {
        const int first = (int)(i % tiles) * QUERIES;
        const portion_of_queries q = {
            (int)(i / tiles / heads), (int)(i / tiles % heads), first, least(QUERIES, queries - first)
        };
        attend(s, memory, scratch, &q);
    }
}
