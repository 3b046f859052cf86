/* The time loop of the plain LSTM cell in C, to be measured beside the project's own in Numba.

It reads and writes the arrays of `asr/model/kernels/cpu_arrays.py` in float32, direction 0 of 1: N
packed frames, S utterances of a share, H units (a multiple of 16), W = 4 * H sums of a frame, in
the order i, f, g, o. Matrices lie in panels of 16 columns, `(columns / 16, K, 16)`.

Each block of 16 units is finished before the next: the four gates' products of all utterances, then
at once, with these sums in registers or in the L1 cache, gates, c and h. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
enum { COLUMNS = 16, SPLIT = COLUMNS / LANES, DEPTH = 256, SPAN = 96, MOST_ROWS = 16 };

/* The largest tile of the product, rows and panels, and the most rows whose four gates are held in
registers from the sums to h. */
#ifndef TILE_ROWS
#define TILE_ROWS (LANES == 16 ? 8 : 6)
#define TILE_PANELS 1
#define CELL_ROWS (LANES == 16 ? 6 : 1)
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int64_t Int;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#define SWITCH(rows) \
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) \
        CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16) }

INLINE Vector load(const float *from) { return *(const Unaligned *)from; }
INLINE void store(float *to, Vector value) { *(Unaligned *)to = value; }
INLINE Vector splat(float value) { return value - (Vector){0}; }
INLINE Vector below(Vector x, Vector bound) /* NaN stays NaN */
{
    Mask over = x > bound;
    return (Vector)(((Mask)bound & over) | ((Mask)x & ~over));
}

INLINE Vector tanh_of(Vector x) /* the polynomials of cpu_pointwise.py */
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
typedef Vector Sums[MOST_ROWS][4 * SPLIT];

INLINE void grow(const int R, const int P, Sums sums, const float *a, Int a_stride,
                 const float *panel, Int panel_stride, Int depth)
{
    for (Int k = 0; k < depth; k++) {
        Vector weights[4 * SPLIT];
        UNROLL for (int v = 0; v < P * SPLIT; v++)
            weights[v] = load(panel + v / SPLIT * panel_stride + k * COLUMNS + v % SPLIT * LANES);
        UNROLL for (int r = 0; r < R; r++) {
            Vector factor = splat(a[r * a_stride + k]);
            UNROLL for (int v = 0; v < P * SPLIT; v++) sums[r][v] += factor * weights[v];
        }
    }
}

/* out += a @ weights for R rows and P panels, with the sums in registers. */
INLINE void tile(const int R, const int P, float *out, Int out_stride, const float *a,
                 Int a_stride, const float *panel, Int panel_stride, Int depth)
{
    Sums sums;
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < P * SPLIT; v++)
        sums[r][v] = load(out + r * out_stride + v * LANES);
    grow(R, P, sums, a, a_stride, panel, panel_stride, depth);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < P * SPLIT; v++)
        store(out + r * out_stride + v * LANES, sums[r][v]);
}

static void add_panels(float *out, Int out_stride, const float *a, Int a_stride, Int rows,
                       const float *panel, Int panel_stride, Int panels, Int depth)
{
    while (rows > 0) {
        Int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, own = (rows + tiles - 1) / tiles;
#define CASE(R) case R: if (R > TILE_ROWS) break; \
        if (panels == TILE_PANELS) \
            tile(R, TILE_PANELS, out, out_stride, a, a_stride, panel, panel_stride, depth); \
        else if (R <= 2 && panels == 4) \
            tile(R, 4, out, out_stride, a, a_stride, panel, panel_stride, depth); \
        else tile(R, 1, out, out_stride, a, a_stride, panel, panel_stride, depth); \
        break;
        SWITCH(own)
        out += own * out_stride, a += own * a_stride, rows -= own;
    }
}

/* out += a @ weights, through the panels from either end. */
static void add_product(float *out, Int out_stride, const float *a, Int a_stride, Int rows,
                        const float *panels, Int count, Int depth, Int backwards)
{
    Int parts = (depth + DEPTH - 1) / DEPTH, most = rows <= 2 ? 4 : TILE_PANELS;
    for (Int step = 0; step < parts; step++) {
        Int start = DEPTH * (backwards ? parts - 1 - step : step);
        Int part = depth - start < DEPTH ? depth - start : DEPTH;
        for (Int done = 0; done < count;) {
            Int own = count - done < most ? 1 : most, p = backwards ? count - done - own : done;
            add_panels(out + p * COLUMNS, out_stride, a + start, a_stride, rows,
                       panels + (p * depth + start) * COLUMNS, depth * COLUMNS, own, part);
            done += own;
        }
    }
}

/* That so often, from either end in turn. */
typedef struct { float *out; const float *a, *panels; Int rows, count, depth, times; } Repeated;

void repeat_product(const Repeated *w)
{
    Int columns = w->count * COLUMNS;
    for (Int n = 0; n < w->times; n++)
        add_product(w->out, columns, w->a, w->depth, w->rows, w->panels, w->count, w->depth, n % 2);
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
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < 4 * SPLIT; v++)
        sums[r][v] = load(to[r].sums + v / SPLIT * to->units + j + v % SPLIT * LANES);
    grow(R, 4, sums, read, depth, panel, panel_stride, depth);
    for (int r = 0; r < R; r++) for (int v = 0; v < SPLIT; v++)
        cell(sums[r][v], sums[r][SPLIT + v], sums[r][2 * SPLIT + v], sums[r][3 * SPLIT + v],
             to + r, j + v * LANES);
}

/* One block of 16 units of all utterances of a frame. */
static void block(const Place *to, const float *read, Int count, const float *panels, Int j)
{
    Int units = to->units, gate = units / COLUMNS * units * COLUMNS;
    const float *panel = panels + j * units;
    if (count > CELL_ROWS) {
        for (int q = 0; q < 4; q++)
            add_panels(to->sums + q * units + j, 4 * units, read, units, count, panel + q * gate,
                       gate, 1, units);
        for (Int n = 0; n < count * SPLIT; n++) {
            Int k = j + n % SPLIT * LANES;
            const float *s = to[n / SPLIT].sums + k, *g = s + 2 * units;
            cell(load(s), load(s + units), load(g), load(g + units), to + n / SPLIT, k);
        }
        return;
    }
#undef CASE
#define CASE(R) case R: if (R > CELL_ROWS) break; \
        cell_tile(R, to, read, panel, gate, units, j); break;
    SWITCH(count)
}

/* What `run_forward` takes, of direction 0; `kept_c` is NULL where no backward pass follows, and
`inputs` where the input's share of the sums stands in `gates` already. */
typedef struct {
    float *gates, *kept_recurrent, *kept_c, *h, *c, *recurrent, *output;
    const float *inputs, *panels_ih, *panels, *bias;
    const Int *starts, *rows;
    Int frames, units, width, low, high;
} Forward;

/* The end of a share, or of those of its utterances that reach a frame. */
INLINE Int running(const Int *starts, Int t, Int high)
{
    Int count = starts[t + 1] - starts[t];
    return count < high ? count : high;
}

static void sum_inputs(const Forward *w, float *sums, float *gathered, Int *offsets, Int t,
                       Int span)
{
    Int count = 0, columns = 4 * w->units;
    for (Int k = 0; k < span && t + k < w->frames; k++) {
        Int start = w->starts[t + k], end = running(w->starts, t + k, w->high);
        offsets[k] = count;
        for (Int b = w->low; b < end; b++, count++) {
            memcpy(gathered + count * w->width, w->inputs + (start + b) * w->width, 4 * w->width);
            memcpy(sums + count * columns, w->bias, 4 * columns);
        }
    }
    add_product(sums, columns, gathered, w->width, count, w->panels_ih, columns / COLUMNS,
                w->width, 0);
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
        if (w->kept_c) memcpy(w->kept_recurrent + first * units, recurrent, 4 * count * units);
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
    float *d_sums, *d_h, *d_c;
    const Int *starts, *rows;
    Int frames, units, low, high;
} Backward;

INLINE void cell_backward(const float *gates, const float *c, const float *d_out, float *d_sums,
                          float *d_h, float *d_c, Int units, Int j)
{
    Vector i = load(gates + j), f = load(gates + units + j), g = load(gates + 2 * units + j);
    Vector o = load(gates + 3 * units + j), before = load(c + j);
    Vector value = tanh_of(f * before + i * g), own = load(d_h + j) + load(d_out + j);
    Vector d = load(d_c + j) + own * o * (1 - value * value);
    store(d_sums + j, d * g * i * (1 - i)), store(d_sums + units + j, d * before * f * (1 - f));
    store(d_sums + 2 * units + j, d * i * (1 - g * g));
    store(d_sums + 3 * units + j, own * value * o * (1 - o));
    store(d_c + j, d * f), store(d_h + j, (Vector){0});
}

void run_backward(const Backward *w)
{
    Int units = w->units, columns = 4 * units;
    for (Int t = w->frames - 1; t >= 0; t--) {
        Int first = w->starts[t] + w->low, count = running(w->starts, t, w->high) - w->low;
        if (count <= 0) continue;
        for (Int b = 0; b < count; b++) {
            Int n = first + b, own = (w->low + b) * units;
            const float *gates = w->gates + n * columns, *d_out = w->d_output + w->rows[n] * units;
            for (Int j = 0; j < units; j += LANES)
                cell_backward(gates, w->c + n * units, d_out, w->d_sums + n * columns,
                              w->d_h + own, w->d_c + own, units, j);
        }
        add_product(w->d_h + w->low * units, units, w->d_sums + first * columns, columns, count,
                    w->panels, units / COLUMNS, columns, t % 2);
    }
}
