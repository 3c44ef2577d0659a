/* From channels-last memory to values and back, and other changes of the order in which elements lie. */
#include "vector.h"

INLINE void transpose4(quad *a, quad *b, quad *c, quad *d) {
    quad ab = SHUFFLE(*a, *b, 0, 4, 1, 5), ab_high = SHUFFLE(*a, *b, 2, 6, 3, 7);
    quad cd = SHUFFLE(*c, *d, 0, 4, 1, 5), cd_high = SHUFFLE(*c, *d, 2, 6, 3, 7);
    *a = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *b = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *c = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
    *d = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
}

/*
 * to[j * to_pitch + i] = from[i * from_pitch + j] for i < rows, j < columns. Sixteen columns at a time: of each row a whole line of
 * the cache is read, and the lines that are written stay in the cache.
 */
static void transpose(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch, int64_t rows, int64_t columns) {
    const int64_t whole_rows = rows / 4 * 4;
    for (int64_t first = 0; first < columns; first += LINE) {
        const int64_t stop = first + LINE < columns ? first + LINE : columns, whole = first + (stop - first) / 4 * 4;
        for (int64_t i = 0; i < whole_rows; i += 4) {
            const float *row = from + i * from_pitch;
            float *out = to + first * to_pitch + i;
            int64_t j = first;
            for (; j < whole; j += 4, out += 4 * to_pitch) {
                quad a = *(const quad *)(row + j), b = *(const quad *)(row + from_pitch + j);
                quad c = *(const quad *)(row + 2 * from_pitch + j), d = *(const quad *)(row + 3 * from_pitch + j);
                transpose4(&a, &b, &c, &d);
                *(quad *)out = a;
                *(quad *)(out + to_pitch) = b;
                *(quad *)(out + 2 * to_pitch) = c;
                *(quad *)(out + 3 * to_pitch) = d;
            }
            for (; j < stop; j++, out += to_pitch) {
                *(quad *)out = (quad){row[j], row[from_pitch + j], row[2 * from_pitch + j], row[3 * from_pitch + j]};
            }
        }
        for (int64_t i = whole_rows; i < rows; i++) {
            for (int64_t j = first; j < stop; j++) to[j * to_pitch + i] = from[i * from_pitch + j];
        }
    }
}

int64_t SIZE(load)(const sparsec_step *s) { return (void)s, 0; }

void NAME(load)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->x), channels = s->x.channels;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    if (count == 1) {
        if (part) return;
        memcpy(y, x, sizeof(float) * channels);
        if (finishes(s)) NAME(finish_vector)(s, memory, 0, channels);
        return;
    }
    const int64_t begin = share(count, part, parts), end = share(count, part + 1, parts);
    if (channels == 1) memcpy(y + begin, x + begin, sizeof(float) * (end - begin));
    else transpose(x + begin * channels, channels, y + begin, s->y.pitch, end - begin, channels);
    if (!finishes(s)) return;
    for (int64_t row = 0; row < channels; row++) NAME(finish)(s, memory, row, begin, end - begin);
}

int64_t SIZE(store)(const sparsec_step *s) { return (void)s, 0; }

void NAME(store)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->x), channels = s->x.channels;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    if (count == 1) {
        if (part == 0) memcpy(y, x, sizeof(float) * channels);
        return;
    }
    const int64_t begin = share(count, part, parts), end = share(count, part + 1, parts);
    if (channels == 1) memcpy(y + begin, x + begin, sizeof(float) * (end - begin));
    else transpose(x + begin, s->x.pitch, y + begin * channels, channels, channels, end - begin);
}

/* The rows of the flat value are [position, channel], those of the other [channel]; a sample is a column of the flat one. */
int64_t SIZE(flatten)(const sparsec_step *s) { return (void)s, 0; }

void NAME(flatten)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t channels = s->x.channels, plane = (int64_t)s->x.height * s->x.width, samples = s->x.samples;
    const int64_t begin = share(channels, part, parts), end = share(channels, part + 1, parts);
    for (int64_t c = begin; c < end; c++) {
        const float *x = row_of(&s->x, memory, c);
        for (int64_t p = 0; p < plane; p++) {
            float *y = row_of(&s->y, memory, p * channels + c);
            for (int64_t n = 0; n < samples; n++) y[n] = x[n * plane + p];
        }
    }
}

int64_t SIZE(unflatten)(const sparsec_step *s) { return (void)s, 0; }

void NAME(unflatten)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t channels = s->y.channels, plane = (int64_t)s->y.height * s->y.width, samples = s->y.samples;
    const int64_t begin = share(channels, part, parts), end = share(channels, part + 1, parts);
    for (int64_t c = begin; c < end; c++) {
        float *y = row_of(&s->y, memory, c);
        for (int64_t p = 0; p < plane; p++) {
            const float *x = row_of(&s->x, memory, p * channels + c);
            for (int64_t n = 0; n < samples; n++) y[n * plane + p] = x[n];
        }
    }
}

/* Copies a row of x into one of y, with zeros around each sample. */
static void pad_row(const sparsec_step *s, const float *x, float *y) {
    const int width = s->x.width, left = s->window.pad_width, right = s->y.width - width - left;
    for (int n = 0; n < s->y.samples; n++) {
        for (int i = 0; i < s->y.height; i++, y += s->y.width) {
            const int from = i - s->window.pad_height;
            if (from < 0 || from >= s->x.height) {
                memset(y, 0, sizeof(float) * s->y.width);
                continue;
            }
            memset(y, 0, sizeof(float) * left);
            memcpy(y + left, x + ((ptrdiff_t)n * s->x.height + from) * width, sizeof(float) * width);
            memset(y + left + width, 0, sizeof(float) * right);
        }
    }
}

/* Copies every so many-th position of a row of x into one of y. */
static void pick_row(const sparsec_step *s, const float *x, float *y) {
    const int down = s->window.stride_height, right = s->window.stride_width, width = s->y.width;
    for (int n = 0; n < s->y.samples; n++, x += (ptrdiff_t)s->x.height * s->x.width) {
        for (int i = 0; i < s->y.height; i++, y += width) {
            const float *from = x + (ptrdiff_t)i * down * s->x.width;
            int j = 0;
            /* Two vectors are read for one, so the last is left out: it might reach beyond the input. */
            for (; right == 2 && j + LANES < width; j += LANES) store(y + j, evens(load(from + 2 * j), load(from + 2 * j + LANES)));
            for (; j < width; j++) y[j] = from[j * right];
        }
    }
}

int64_t SIZE(map)(const sparsec_step *s) { return (void)s, 0; }

void NAME(map)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->y);
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    if (count == 1 && s->x.pitch == 1) {
        memmove(row_of(&s->y, memory, begin), row_of(&s->x, memory, begin), sizeof(float) * (end - begin));
        NAME(finish_vector)(s, memory, begin, end);
        return;
    }
    const int same = s->x.height == s->y.height && s->x.width == s->y.width;
    const int picks = s->window.stride_height > 1 || s->window.stride_width > 1;
    for (int64_t row = begin; row < end; row++) {
        const float *x = row_of(&s->x, memory, row);
        float *y = row_of(&s->y, memory, row);
        if (picks) pick_row(s, x, y);
        else if (!same) pad_row(s, x, y);
        else if (x != y) memcpy(y, x, sizeof(float) * count);
        if (finishes(s)) NAME(finish)(s, memory, row, 0, count);
    }
}
