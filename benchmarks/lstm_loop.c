/* The time loop of the plain LSTM cell in C, to be measured beside the project's own in Numba.

It reads and writes the arrays of `asr/model/kernels/cpu_launch.py` in float32, direction 0 of 1: N
packed frames, S utterances of a share, H units (a multiple of 16), W = 4 * H sums of a frame, in
the order i, f, g, o. Matrices, and what the recurrent one read at each frame, lie in panels of 16
columns, `(columns / 16, K, 16)`.

Each block of 16 units is finished before the next: the four gates' products of a few utterances,
then at once, with these sums still in registers, gates, c and h. It needs AVX-512. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef __AVX512F__
#error "needs AVX-512: 32 registers of 16 numbers"
#endif

/* A tile of the product: the most rows, and the panels, 24 sums in registers; an input's product is
taken over SPAN rows at once. */
enum { COLUMNS = 16, ROWS = 6, PANELS = 4, SPAN = 96 };

typedef float Vector __attribute__((vector_size(4 * COLUMNS)));
typedef int32_t Mask __attribute__((vector_size(4 * COLUMNS)));
typedef float Unaligned __attribute__((vector_size(4 * COLUMNS), aligned(4), may_alias));
typedef int64_t Int;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#define SWITCH(rows) switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }

INLINE Vector load(const float *from) { return *(const Unaligned *)from; }
INLINE void store(float *to, Vector value) { *(Unaligned *)to = value; }
INLINE Vector splat(float value) { return value - (Vector){0}; }
INLINE Vector below(Vector x, Vector bound) /* NaN stays NaN */
{
    Mask over = x > bound;
    return (Vector)(((Mask)bound & over) | ((Mask)x & ~over));
}

INLINE Vector tanh_of(Vector x) /* the polynomials of cpu_tile.py */
{
    const float a[] = {4.89352455891786e-3, 6.37261928876435e-4, 1.48572235717979e-5,
        5.12229709037114e-8, -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16};
    const float b[] = {4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4,
        1.19825839466702e-6};
    const Vector bound = splat(7.90531110763549805f);
    x = -below(-below(x, bound), bound);
    Vector s = x * x, top = splat(a[6]);
    for (int n = 5; n >= 0; n--) top = top * s + a[n];
    return x * top / (((b[3] * s + b[2]) * s + b[1]) * s + b[0]);
}

INLINE Vector sigmoid_of(Vector x) { return 0.5f + 0.5f * tanh_of(0.5f * x); }

/* sums += a @ weights for R rows and P panels; of fixed size, or they would stay in memory. */
typedef Vector Sums[ROWS][PANELS];

INLINE void grow(const int R, const int P, Sums sums, const float *a, Int a_stride,
                 const float *panel, Int panel_stride, Int depth)
{
    for (Int k = 0; k < depth; k++) {
        Vector weights[PANELS];
        UNROLL for (int p = 0; p < P; p++)
            weights[p] = load(panel + p * panel_stride + k * COLUMNS);
        UNROLL for (int r = 0; r < R; r++) {
            Vector factor = splat(a[r * a_stride + k]);
            UNROLL for (int p = 0; p < P; p++) sums[r][p] += factor * weights[p];
        }
    }
}

/* `out = initial + a @ weights` as in `cpu_tile.py`; strides in numbers. */
typedef struct {
    float *out;
    const float *initial, *a, *panel;
    Int out_stride, initial_stride, a_stride, panel_stride, depth;
} Product;

/* For R rows and P panels, with the sums in registers. */
INLINE void tile(const int R, const int P, const Product *w)
{
    Sums sums;
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++) {
        sums[r][p] = load(w->initial + r * w->initial_stride + p * COLUMNS);
        __builtin_prefetch(w->out + (r + R) * w->out_stride + p * COLUMNS, 1);
    }
    grow(R, P, sums, w->a, w->a_stride, w->panel, w->panel_stride, w->depth);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++)
        store(w->out + r * w->out_stride + p * COLUMNS, sums[r][p]);
}

/* The next tile's rows, of so many that are left: all tiles alike in size. */
INLINE Int next_rows(Int left)
{
    Int tiles = (left + ROWS - 1) / ROWS;
    return (left + tiles - 1) / tiles;
}

static void add_panels(Product w, Int rows, Int panels)
{
    for (Int own; rows > 0; rows -= own) {
        own = next_rows(rows);
#define CASE(R) case R: if (panels == PANELS) tile(R, PANELS, &w); else tile(R, 1, &w); break;
        SWITCH(own)
        w.out += own * w.out_stride, w.initial += own * w.initial_stride, w.a += own * w.a_stride;
    }
}

/* The whole of it, through `count` panels from either end. */
static void add_product(Product whole, Int rows, Int count, Int backwards)
{
    for (Int done = 0; done < count;) {
        Int own = count - done < PANELS ? 1 : PANELS, p = backwards ? count - done - own : done;
        Product w = whole;
        w.out += p * COLUMNS, w.initial += p * COLUMNS, w.panel += p * w.panel_stride;
        add_panels(w, rows, own);
        done += own;
    }
}

/* That so often, from either end in turn. */
typedef struct { float *out; const float *a, *panels; Int rows, count, depth, times; } Repeated;

void repeat_product(const Repeated *w)
{
    Int columns = w->count * COLUMNS;
    Product one = {w->out, w->out, w->a, w->panels, columns, columns, w->depth, w->depth * COLUMNS,
                   w->depth};
    for (Int n = 0; n < w->times; n++) add_product(one, w->rows, w->count, n % 2);
}

/* Where an utterance's units are read and written in a frame; `kept_c` and `gates` NULL where
nothing is kept. `next` are the next frame's sums, NULL where they are at hand: the cache is asked
in time for them and for the room to write. */
typedef struct {
    float *sums, *c, *h, *output, *kept_c, *gates;
    const float *next;
    Int units, kept_stride;
} Place;

INLINE void cell(Vector i, Vector f, Vector g, Vector o, const Place *to, Int j)
{
    i = sigmoid_of(i), f = sigmoid_of(f), g = tanh_of(g), o = sigmoid_of(o);
    Vector before = load(to->c + j), c = f * before + i * g, h = o * tanh_of(c);
    Vector gates[] = {i, f, g, o};
    if (to->gates) {
        UNROLL for (int q = 0; q < 4; q++) store(to->gates + q * to->units + j, gates[q]);
        store(to->kept_c + j, before);
    }
    store(to->c + j, c), store(to->h + j, h), store(to->output + j, h);
    if (!to->next) return;
    for (int q = 0; q < 4; q++) __builtin_prefetch(to->next + q * to->units + j, 1);
    if (to->gates) __builtin_prefetch(to->kept_c + to->kept_stride + j, 1);
    __builtin_prefetch(to->output + to->units + j, 1);
}

/* The four gates of R utterances for 16 units from j on, all in registers. */
INLINE void cell_tile(const int R, const Place *to, const float *read, const float *panel,
                      Int panel_stride, Int depth, Int j)
{
    Sums sums;
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int q = 0; q < 4; q++)
        sums[r][q] = load(to[r].sums + q * to->units + j);
    grow(R, 4, sums, read, depth, panel, panel_stride, depth);
    for (int r = 0; r < R; r++) cell(sums[r][0], sums[r][1], sums[r][2], sums[r][3], to + r, j);
}

/* One block of 16 units of all utterances of a frame. */
static void block(const Place *to, const float *read, Int count, const float *panels, Int j)
{
    for (Int own, units = to->units; count > 0; count -= own) {
        own = next_rows(count);
#undef CASE
#define CASE(R) case R: cell_tile(R, to, read, panels + j * units, units * units, units, j); break;
        SWITCH(own)
        to += own, read += own * units;
    }
}

/* What `run_forward` takes, of direction 0; `kept_c` is NULL where no backward pass follows, and
`inputs` where the input's share of the sums stands in `gates` already. */
typedef struct {
    float *gates, *kept_recurrent, *kept_c, *h, *c, *recurrent, *output;
    const float *inputs, *panels_ih, *panels, *start;
    const Int *starts, *rows;
    Int frames, units, width, low, high;
} Forward;

INLINE Int least(Int a, Int b) { return a < b ? a : b; }

/* The end of a share, or of those of its utterances that reach a frame. */
INLINE Int running(const Int *s, Int t, Int high) { return least(s[t + 1] - s[t], high); }

static void sum_inputs(const Forward *w, float *sums, float *gathered, Int *offsets, Int t,
                       Int span)
{
    Int count = 0, columns = 4 * w->units;
    for (Int k = 0; k < span && t + k < w->frames; k++) {
        Int start = w->starts[t + k], end = running(w->starts, t + k, w->high);
        offsets[k] = count;
        for (Int b = w->low; b < end; b++, count++) {
            const float *x = w->inputs + w->rows[start + b] * w->width;
            memcpy(gathered + count * w->width, x, 4 * w->width);
        }
    }
    add_product((Product){sums, w->start, gathered, w->panels_ih, columns, 0, w->width,
                          w->width * COLUMNS, w->width}, count, columns / COLUMNS, 0);
}

static void keep_recurrent(const Forward *w, const float *recurrent, Int first, Int count)
{
    Int units = w->units;
    for (Int p = 0; p < units / COLUMNS; p++) for (Int b = 0; b < count; b++) {
        float *to = w->kept_recurrent + (p * w->starts[w->frames] + first + b) * COLUMNS;
        memcpy(to, recurrent + b * units + p * COLUMNS, 4 * COLUMNS);
    }
}

void run_forward(const Forward *w)
{
    Int units = w->units, columns = 4 * units, utterances = w->high - w->low, held = -1;
    Int span = SPAN / utterances > 0 ? SPAN / utterances : 1;
    float *fresh = malloc(4 * utterances * units), *sums = malloc(4 * span * utterances * columns);
    float *gathered = malloc(4 * span * utterances * w->width);
    Int *offsets = calloc(span, sizeof(Int));
    Place *to = malloc(utterances * sizeof(Place));
    float *c = w->c + w->low * units, *recurrent = w->recurrent + w->low * units;
    for (Int t = 0; t < w->frames; t++) {
        Int first = w->starts[t] + w->low, count = running(w->starts, t, w->high) - w->low;
        if (count <= 0) continue;
        float *own = w->gates + first * columns;
        if (w->inputs) {
            if (held != t / span) sum_inputs(w, sums, gathered, offsets, t / span * span, span);
            held = t / span;
            own = sums + offsets[t % span] * columns;
        }
        if (w->kept_c) keep_recurrent(w, recurrent, first, count);
        for (Int b = 0; b < count; b++)
            to[b] = (Place){own + b * columns, c + b * units, fresh + b * units,
                            w->output + w->rows[first + b] * units,
                            w->kept_c ? w->kept_c + (first + b) * units : NULL,
                            w->kept_c ? own + b * columns : NULL,
                            w->inputs ? NULL : own + (b + count) * columns,
                            units, count * units};
        for (Int j = 0; j < units; j += COLUMNS)
            block(to, recurrent, count, w->panels, t % 2 ? units - COLUMNS - j : j);
        memcpy(recurrent, fresh, 4 * count * units);
        memcpy(w->h + w->low * units, fresh, 4 * count * units);
    }
    free(fresh), free(sums), free(gathered), free(offsets), free(to);
}

/* What `run_backward` takes; `panels` hold the transposed matrix. */
typedef struct {
    const float *gates, *c, *d_output, *panels;
    float *d_sums, *d_bias, *d_h, *d_c;
    const Int *starts, *rows;
    Int frames, units, low, high;
} Backward;

INLINE void add_to(float *sum, Vector value) { store(sum, load(sum) + value); }

INLINE void cell_backward(const float *gates, const float *c, const float *d_out, float *d_sums,
                          float *d_bias, const float *d_h, float *d_c, Int units, Int j)
{
    Vector i = load(gates + j), f = load(gates + units + j), g = load(gates + 2 * units + j);
    Vector o = load(gates + 3 * units + j), before = load(c + j);
    Vector value = tanh_of(f * before + i * g), own = load(d_h + j) + load(d_out + j);
    Vector d = load(d_c + j) + own * o * (1 - value * value);
    Vector d_gates[] = {d * g * i * (1 - i), d * before * f * (1 - f), d * i * (1 - g * g),
                        own * value * o * (1 - o)};
    UNROLL for (int q = 0; q < 4; q++) {
        store(d_sums + q * units + j, d_gates[q]);
        add_to(d_bias + q * units + j, d_gates[q]);
    }
    store(d_c + j, d * f);
}

void run_backward(const Backward *w)
{
    Int units = w->units, columns = 4 * units;
    float *zeros = calloc(units, sizeof(float));
    for (Int t = w->frames - 1; t >= 0; t--) {
        Int first = w->starts[t] + w->low, count = running(w->starts, t, w->high) - w->low;
        if (count <= 0) continue;
        for (Int b = 0; b < count; b++) {
            Int n = first + b, own = w->low + b;
            const float *gates = w->gates + n * columns, *d_out = w->d_output + w->rows[n] * units;
            for (Int j = 0; j < units; j += COLUMNS)
                cell_backward(gates, w->c + n * units, d_out, w->d_sums + n * columns,
                              w->d_bias + own * columns, w->d_h + own * units,
                              w->d_c + own * units, units, j);
        }
        Product read = {w->d_h + w->low * units, zeros, w->d_sums + first * columns, w->panels,
                        units, 0, columns, columns * COLUMNS, columns};
        add_product(read, count, units / COLUMNS, t % 2);
    }
    free(zeros);
}
