/*
 * Recurrent cells, step by step.
 *
 * x is what the steps take from their input, with all biases that are simply added: [gates * units, samples, steps]. y is all
 * outputs, [units, samples, steps]. weights is the recurrent kernel, which multiplies the state:
 *
 *   options[0]  1 where weights is sparsec_slices; that is for one sample alone
 *   options[1]  the cell, as below
 *   options[2]  1 where the last step is the first
 *   options[3], options[4]  the functions of the candidate and of the gates, negative for none, with
 *   numbers     a and b of the one, then of the other
 *   options[5]  1 where the output is zero at steps that do not count
 *   residual    the states before the first step, one after the other, if they are not zero
 *   extra       where the states after the last step go, if anywhere
 *   mask        not zero where a step of a sample counts, [steps, samples]; with none, all count
 *
 * At a step that does not count, the states stay what they are, and the output is that of the step before, zero at the first.
 *
 * The weights of the cells with gates z and r are two pieces, the second for the candidate.
 */
#include "transpose.h"

enum {
    SIMPLE,    /* h = f(x + W h) */
    LSTM,      /* i, f, g, o = x + W h; c = f c + i g; h = o f(c) */
    GRU,       /* z, r, g: g = f(x + W (r h)); h = z h + (1 - z) g */
    GRU_AFTER, /* g = f(x + r (W h + bias)) */
};

enum {
    STEPS = 16,          /* at most so many are brought from x and into y at a time */
    LEAST = 4,           /* and at least so many */
    ROOM = 1 << 18,      /* the floats which they may take, if they are not the least */
    CROWDED = 4,         /* rows of more lines than this have an odd number of them */
};

/* What a step is computed with. States are [units] rows of `pitch` floats, one for each sample; a gate has as many floats. */
typedef struct {
    const sparsec_step *step;
    int cell, gates, states;
    int64_t units, samples, steps, pitch, floats;
    int64_t chunk;      /* steps at a time */
    float *inputs;      /* of these steps, [gates] each, and `input` floats from one to the next */
    float *outputs;     /* of these steps, and `output` floats from one to the next */
    int64_t input, output;
    float *h, *c, *read;
    float *counts;      /* whether a step counts, for each sample */
    float *before;      /* the output of the step before the first of these, or zeros */
    float *kept;        /* what c was before a step */
    void *scratch;      /* for the products */
} cells;

/* What goes from step to step: the state h and the output of the step before, which lie in one place where they cannot differ. */
typedef struct {
    const float *h, *output;
} flow;

static const int GATES[] = {1, 4, 3, 3}, STATES[] = {1, 2, 1, 1};

INLINE int is_gated(int cell) { return cell == GRU || cell == GRU_AFTER; }

/* A product with one piece of the weights, whose x is in memory 0 and whose y is in memory 1. */
static sparsec_step product_of(const cells *k, int piece, int rows) {
    const sparsec_step *s = k->step;
    sparsec_step p = {.pieces = 1, .low = -__builtin_inff(), .high = __builtin_inff()};
    if (s->options[0]) p.weights = (const sparsec_slices *)s->weights + piece;
    else p.weights = (const sparsec_matrix *)s->weights + piece;
    p.x = (sparsec_value){.base = 0, .channels = (int32_t)k->units, .samples = (int32_t)k->samples, .height = 1, .width = 1};
    p.x.pitch = k->pitch;
    p.y = p.x;
    p.y.base = 1;
    p.y.channels = rows;
    p.residual.base = p.extra.base = -1;
    return p;
}

static int64_t product_bytes(const cells *k, int piece, int rows) {
    const sparsec_step p = product_of(k, piece, rows);
    if (k->samples > 1) return SIZE(product)(&p);
    return k->step->options[0] ? SIZE(slices)(&p) : SIZE(vector)(&p);
}

static void run_product(const cells *k, const sparsec_step *p, const float *from, float *to) {
    float *const memory[] = {(float *)from, to};
    if (k->samples > 1) NAME(product)(p, memory, k->scratch, 0, 1);
    else if (k->step->options[0]) NAME(slices)(p, memory, k->scratch, 0, 1);
    else NAME(vector)(p, memory, k->scratch, 0, 1);
}

/* sums += W h */
static void add_product(const cells *k, int piece, int gates, const float *h, float *sums) {
    sparsec_step p = product_of(k, piece, (int)(gates * k->units));
    if (k->samples > 1) p.residual = p.y;
    else p.bias = sums;
    run_product(k, &p, h, sums);
}

/* Hands out the memory of a step; with none it counts how much is needed. */
static cells plan_cells(const sparsec_step *s, arena *from) {
    cells k = {.step = s, .cell = s->options[1], .units = s->y.channels, .samples = s->x.samples};
    k.gates = GATES[k.cell], k.states = STATES[k.cell];
    k.steps = (int64_t)s->x.height * s->x.width;
    const int64_t lines = round_up(k.samples, LINE) / LINE;
    k.pitch = k.samples == 1 ? 1 : LINE * (lines > CROWDED ? lines | 1 : lines);
    k.floats = k.units * k.pitch;
    k.chunk = ROOM / (k.gates * k.floats);
    k.chunk = k.chunk < LEAST ? LEAST : k.chunk > STEPS ? STEPS : k.chunk;
    k.chunk = k.chunk < k.steps ? k.chunk : k.steps;
    const int64_t bytes = k.floats * (int64_t)sizeof(float);
    /* A line more keeps the steps, which are brought together, out of one another's sets of the cache. */
    k.input = round_up(k.gates * k.floats, LINE) + LINE;
    k.output = round_up(k.floats, LINE) + LINE;
    k.inputs = take(from, k.chunk * k.input * (int64_t)sizeof(float));
    k.outputs = take(from, k.chunk * k.output * (int64_t)sizeof(float));
    k.h = take(from, bytes);
    k.c = take(from, bytes);
    k.read = take(from, bytes);
    k.counts = take(from, k.pitch * (int64_t)sizeof(float));
    k.before = take(from, bytes);
    k.kept = take(from, bytes);
    const int units = s->y.channels;
    const int64_t first = product_bytes(&k, 0, (is_gated(k.cell) ? 2 : k.gates) * units);
    const int64_t second = is_gated(k.cell) ? product_bytes(&k, 1, units) : 0;
    k.scratch = take(from, first > second ? first : second);
    return k;
}

int64_t SIZE(recurrent)(const sparsec_step *s) {
    arena counted = {NULL, 0};
    (void)plan_cells(s, &counted);
    return counted.used;
}

/* ---- cells ------------------------------------------------------------------------------------------------------------ */

static void apply(const cells *k, int which, float *y, int64_t gates) {
    const sparsec_step *s = k->step;
    const int function = s->options[3 + which];
    if (function >= 0) NAME(apply)(function, s->numbers[2 * which], s->numbers[2 * which + 1], y, gates * k->floats);
}

static void activate(const cells *k, float *y, int64_t gates) { apply(k, 0, y, gates); }
static void open_gates(const cells *k, float *y, int64_t gates) { apply(k, 1, y, gates); }

static void run_simple(const cells *k, float *z, const float *h, float *out) {
    add_product(k, 0, 1, h, z);
    activate(k, z, 1);
    memcpy(out, z, sizeof(float) * k->floats);
}

static void update_cell(int64_t n, const float *restrict z, float *restrict c, float *restrict out) {
    for (int64_t i = 0; i < n; i++) out[i] = c[i] = z[n + i] * c[i] + z[i] * z[2 * n + i];
}

static void multiply(int64_t n, const float *restrict by, float *restrict y) {
    for (int64_t i = 0; i < n; i++) y[i] *= by[i];
}

static void run_lstm(const cells *k, float *z, const float *h, float *out) {
    const int64_t n = k->floats;
    add_product(k, 0, 4, h, z);
    open_gates(k, z, 2);
    activate(k, z + 2 * n, 1);
    open_gates(k, z + 3 * n, 1);
    update_cell(n, z, k->c, out);
    activate(k, out, 1);
    multiply(n, z + 3 * n, out);
}

static void read_before(int64_t n, const float *restrict r, const float *restrict h, float *restrict read) {
    for (int64_t i = 0; i < n; i++) read[i] = r[i] * h[i];
}

static void read_after(int64_t n, const float *restrict r, const float *restrict read, float *restrict g) {
    for (int64_t i = 0; i < n; i++) g[i] += r[i] * read[i];
}

static void mix(int64_t n, const float *restrict z, const float *restrict h, const float *restrict g, float *restrict out) {
    for (int64_t i = 0; i < n; i++) out[i] = z[i] * h[i] + (1.0f - z[i]) * g[i];
}

static void run_gru(const cells *k, float *z, const float *h, float *out) {
    const int64_t n = k->floats;
    float *r = z + n, *g = z + 2 * n;
    add_product(k, 0, 2, h, z);
    open_gates(k, z, 2);
    if (k->cell == GRU) {
        read_before(n, r, h, k->read);
        add_product(k, 1, 1, k->read, g);
    } else {
        sparsec_step p = product_of(k, 1, (int)k->units);
        p.bias = k->step->bias;
        run_product(k, &p, h, k->read);
        read_after(n, r, k->read, g);
    }
    activate(k, g, 1);
    mix(n, z, h, g, out);
}

static void run_cell(const cells *k, float *z, const float *h, float *out) {
    switch (k->cell) {
        case SIMPLE: run_simple(k, z, h, out); break;
        case LSTM: run_lstm(k, z, h, out); break;
        default: run_gru(k, z, h, out);
    }
}

/* ---- steps that do not count ------------------------------------------------------------------------------------------ */

INLINE int is_masked(const cells *k) { return k->step->mask.base >= 0; }
INLINE int gives_zero(const cells *k) { return k->step->options[5]; }

/* For how many samples a step counts, and for which. */
static int64_t read_counts(const cells *k, float *const *memory, int64_t step) {
    const float *mask = row_of(&k->step->mask, memory, step);
    int64_t found = 0;
    for (int64_t i = 0; i < k->samples; i++) {
        k->counts[i] = mask[i];
        found += mask[i] != 0.0f;
    }
    return found;
}

/* to = a for the samples for which the step counts, else b; it may be either. */
static void pick_counted(const cells *k, const float *a, const float *b, float *to) {
    for (int64_t i = 0; i < k->pitch; i += LANES) {
        const ivec counts = load(k->counts + i) != 0.0f;
        for (int64_t at = i; at < k->floats; at += k->pitch) store(to + at, choose(counts, load(a + at), load(b + at)));
    }
}

/* A step that counts for some samples, but not for all. */
static void run_some(const cells *k, float *z, flow *f, float *out) {
    if (k->cell == LSTM) memcpy(k->kept, k->c, sizeof(float) * k->floats);
    run_cell(k, z, f->h, out);
    if (k->cell == LSTM) pick_counted(k, k->c, k->kept, k->c);
    if (f->h == f->output) {
        pick_counted(k, out, f->output, out);
        *f = (flow){out, out};
        return;
    }
    pick_counted(k, out, f->h, k->h);
    pick_counted(k, out, f->output, out);
    *f = (flow){k->h, gives_zero(k) ? f->output : out};
}

/* A step that counts for so many samples. */
static void run_one(const cells *k, int64_t counted, float *z, flow *f, float *out) {
    if (counted == 0) {
        memcpy(out, f->output, sizeof(float) * k->floats);
    } else if (counted < k->samples) {
        run_some(k, z, f, out);
    } else {
        run_cell(k, z, f->h, out);
        *f = (flow){out, gives_zero(k) ? f->output : out};
    }
}

/* Where the outputs of some steps are about to make place for others. */
static void keep_flow(const cells *k, flow *f) {
    const int same = f->h == f->output;
    if (f->h != k->h) memcpy(k->h, f->h, sizeof(float) * k->floats);
    if (!same && f->output != k->before) memcpy(k->before, f->output, sizeof(float) * k->floats);
    *f = (flow){k->h, same ? k->h : k->before};
}

/* ---- what goes in and out --------------------------------------------------------------------------------------------- */

static void bring_inputs(const cells *k, float *const *memory, int64_t first, int64_t count) {
    const sparsec_value *v = &k->step->x;
    const float *x = row_of(v, memory, 0) + first;
    const int64_t rows = k->gates * k->units;
    if (k->samples == 1) transpose(x, v->pitch, k->inputs, k->input, rows, count);
    else for (int64_t row = 0; row < rows; row++) {
        transpose(x + row * v->pitch, k->steps, k->inputs + row * k->pitch, k->input, k->samples, count);
    }
}

static void bring_outputs(const cells *k, float *const *memory, int64_t first, int64_t count) {
    const sparsec_value *v = &k->step->y;
    float *y = row_of(v, memory, 0) + first;
    if (k->samples == 1) transpose(k->outputs, k->output, y, v->pitch, count, k->units);
    else for (int64_t row = 0; row < k->units; row++) {
        transpose(k->outputs + row * k->pitch, k->output, y + row * v->pitch, k->steps, count, k->samples);
    }
}

static flow begin_states(const cells *k, float *const *memory) {
    const sparsec_value *initial = &k->step->residual;
    float *const states[] = {k->h, k->c};
    for (int i = 0; i < k->states; i++) {
        memset(states[i], 0, sizeof(float) * k->floats);
        for (int64_t row = 0; initial->base >= 0 && row < k->units; row++) {
            const float *from = row_of(initial, memory, i * k->units + row);
            memcpy(states[i] + row * k->pitch, from, sizeof(float) * k->samples);
        }
    }
    memset(k->before, 0, sizeof(float) * k->floats);
    memset(k->counts, 0, sizeof(float) * k->pitch);
    return (flow){k->h, initial->base >= 0 || gives_zero(k) ? k->before : k->h};
}

static void end_states(const cells *k, float *const *memory) {
    const sparsec_value *final = &k->step->extra;
    const float *const states[] = {k->h, k->c};
    for (int64_t row = 0; final->base >= 0 && row < k->states * k->units; row++) {
        const float *from = states[row / k->units] + row % k->units * k->pitch;
        memcpy(row_of(final, memory, row), from, sizeof(float) * k->samples);
    }
}

static void finish_outputs(const cells *k, float *const *memory) {
    const sparsec_step *s = k->step;
    const int64_t count = positions(&s->y);
    if (!finishes(s)) return;
    if (count == 1) NAME(finish_vector)(s, memory, 0, k->units);
    else for (int64_t row = 0; row < k->units; row++) NAME(finish)(s, memory, row, 0, count);
}

void NAME(recurrent)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)parts;
    /* A step needs all of the step before, so that threads would wait for one another more than they would work. */
    if (part) return;
    arena given = {scratch, 0};
    const cells k = plan_cells(s, &given);
    const int backwards = s->options[2];
    /* Where rows have padding, computing with what happens to stand there may take long. */
    if (k.pitch != k.samples) memset(k.inputs, 0, sizeof(float) * k.chunk * k.input);
    flow f = begin_states(&k, memory);
    for (int64_t done = 0; done < k.steps; done += k.chunk) {
        const int64_t left = k.steps - done, count = k.chunk < left ? k.chunk : left;
        const int64_t first = backwards ? left - count : done;
        bring_inputs(&k, memory, first, count);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = backwards ? count - 1 - i : i;
            const int64_t counted = is_masked(&k) ? read_counts(&k, memory, first + at) : k.samples;
            run_one(&k, counted, k.inputs + at * k.input, &f, k.outputs + at * k.output);
        }
        keep_flow(&k, &f);
        bring_outputs(&k, memory, first, count);
    }
    end_states(&k, memory);
    finish_outputs(&k, memory);
}
