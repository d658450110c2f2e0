/* The loops over time of cell_loops.py and attention_loops.py, step for step the same, without an
   interpreter between the steps.

   B rows of the batch, of which step t computes the first rows[t] · S source positions
   H cell units · M memory units · A attention units · G units of all gates · V vocabulary

   All arrays are contiguous, row by row, with time first: a state buffer is [T + 1, B, H], gates
   are [T, B, G]. The prefix d_ means the gradient of the loss. native.py has checked every tensor.

   The file includes itself, once for float and once for double. */

#ifndef REAL

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* native.py has the same number, which changes when a field or a function gets another meaning. */
#define VERSION 8

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* One build serves every x86-64 processor: each VECTORISED function is compiled once for each set
   of vector instructions. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#if defined(__GNUC__)
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define PANELS __attribute__((target("avx512f")))
#define VECTOR_BYTES 64
#define PANEL (2 * VECTOR_BYTES / (int64_t)sizeof(REAL)) /* columns of a panel: two vectors */
#define TILE 14 /* rows of a tile: its sums take 28 of the 32 vector registers */
#define COUNTS                                                     \
    COUNT(1) COUNT(2) COUNT(3) COUNT(4) COUNT(5) COUNT(6) COUNT(7) \
    COUNT(8) COUNT(9) COUNT(10) COUNT(11) COUNT(12) COUNT(13) COUNT(14)
#define DEPTH 256          /* inner size of a product at a time: its panel fits the L1 cache */
#define HEIGHT (32 * TILE) /* rows of a product at a time: its left factor fits the L2 cache */
#define PAGE 4096          /* bytes: rows that are a multiple apart evict each other */
#endif

EXPORTED int64_t version(void) { return VERSION; }

/* Returns 1 when products of panels are faster than BLAS over many rows too. That is so on AMD,
   where torch's BLAS uses vectors of 256 bits at most. */
EXPORTED int64_t product_pays(void)
{
#ifdef PANELS
    return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f");
#else
    return 0;
#endif
}

/* exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, and exp(r) by its Taylor series. It has no branches,
   so that the compiler vectorises it. */
INLINED float exponential_float(float x)
{
    const float to_whole = 12582912.0f; /* 1.5 * 2^23: adding and subtracting it rounds */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = (x * 1.44269504f + to_whole) - to_whole;
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f; /* ln(2) in two parts, for precision */
    float series = 1.0f / 5040;
    series = series * r + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    series = series * r + 1.0f;
    series = series * r + 1.0f;
    union {
        uint32_t bits;
        float value;
    } power = {(uint32_t)((int32_t)n + 127) << 23};
    return series * power.value;
}

INLINED double exponential_double(double x) { return exp(x); }

#define REAL float
#define NAME(name) name##_float
#include "loops.c"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_double
#include "loops.c"

#else

#define gemm_t NAME(gemm_t)
#define blas_t NAME(blas_t)
#define cell_t NAME(cell_t)
#define dropout_t NAME(dropout_t)
#define attention_t NAME(attention_t)
#define prediction_t NAME(prediction_t)
#define factor_t NAME(factor_t)
#define product_t NAME(product_t)
#define factors_t NAME(factors_t)
#define vector_t NAME(vector_t)
#define factor NAME(factor)
#define multiply NAME(multiply)
#define sigmoid NAME(sigmoid)
#define softmax NAME(softmax)
#define inner NAME(inner)
#define add_scaled NAME(add_scaled)

/* A layer of cells (Steps of cell_loops.py). Step t reads row t + before of a state buffer and
   writes row t + after. A null pointer stands for a tensor that is not used.

   Some buffers may hold the newest rows only. Step t of the gates is then row t % gate_rows, and
   row t of inside and half_tanh is row t % inside_rows. */
typedef struct {
    int64_t gru, batch, units, below_units, before, after, gate_rows, inside_rows;
    const int64_t *lengths; /* [B]: at and after this step a row's state stays */
    REAL *gates, *output;   /* [T, B, G], [T + 1, B, H] */
    REAL *inside;           /* LSTM: 2 c [T + 1, B, H]; GRU: r * h [T, B, H] */
    REAL *half_tanh;        /* LSTM: sigmoid(2 c) [T + 1, B, H] */
    const int64_t *ids;     /* [T, B] */
    const REAL *table;      /* [V, G]: gates[t, b] starts from table[ids[t, b]] */
    const REAL *weights;    /* LSTM: [H, 4 H]; GRU: [H, 2 H] */
    const REAL *candidate_weights; /* GRU: [H, H] */
    const REAL *below, *below_weights; /* [T, B, below_units], [below_units, G] */
    REAL *d_output, *d_c, *d_below;    /* [T + 1, B, H], [B, H], [T, B, below_units] */
    REAL *scratch;                     /* GRU: [2, B, H] */
} cell_t;

/* A dropout below a layer or attention (Dropout of attention_loops.py). All are [T, B, units].
   Without a mask, output is below itself and d_output is d_below. */
typedef struct {
    int64_t batch, units;
    const REAL *mask, *below;
    REAL *output;
    const REAL *d_output;
    REAL *d_below;
} dropout_t;

/* Attention (AttentionSteps of attention_loops.py). Hidden may hold the newest steps only: step t
   is then t % hidden_rows. */
typedef struct {
    int64_t additive, batch, positions, query_units, memory_units, units, hidden_rows;
    const REAL *query, *values, *keys, *biases; /* [T, B, H], [B, S, M], [B, S, units], [B, S] */
    const REAL *query_weights, *v;              /* 2 W [H, A] and 2 v [A] of additive scores */
    const int64_t *sources; /* [B]: the row of values and keys of each row; null: its own */
    REAL *weights, *context, *hidden, *scratch; /* [T, B, S], [T + 1, B, M], [T, B, S, A], [B, A] */
    const REAL *d_weights;
    REAL *d_context, *d_scores, *d_query, *d_query_part, *d_keys, *d_v;
} attention_t;

/* The predictions of greedy decoding (greedy_loop.py). Rows that have ended leave the batch, and
   the rows below move up. */
typedef struct {
    int64_t batch, time, output_units, memory_units, vocabulary, end;
    int64_t *ids;     /* [B]: the ids of the last step */
    int64_t *sources; /* [B]: the source of each row */
    int64_t *all_ids; /* [B, T] by source, zeros before the loop */
    const REAL *mix, *mix_biases; /* [H + M, H] and [H] of attention, or null */
    const REAL *weights, *biases; /* [V, H] and [V] */
    REAL *mixed, *logits;         /* [B, H] and [B, V] */
} prediction_t;

#include "products.h"

/* Returns the offset of a structure's field in bytes, or the structure's size for "". native.py
   compares them with its own. */
EXPORTED int64_t NAME(offset)(const char *structure, const char *field)
{
    typedef struct {
        const char *structure, *field;
        size_t offset;
    } place_t;
#define SIZE(name) {#name, "", sizeof(name##_t)}
#define AT(name, field) {#name, #field, offsetof(name##_t, field)}
    static const place_t places[] = {
SIZE(blas), AT(blas, gemm), AT(blas, threads),

        SIZE(product), AT(product, n), AT(product, k), AT(product, m), AT(product, a_row),
        AT(product, a_column), AT(product, b_row), AT(product, b_column), AT(product, start_row),
        AT(product, c_row), AT(product, a), AT(product, b), AT(product, start), AT(product, c),

        SIZE(cell), AT(cell, gru), AT(cell, batch), AT(cell, units), AT(cell, below_units),
        AT(cell, before), AT(cell, after), AT(cell, gate_rows), AT(cell, inside_rows),
        AT(cell, lengths), AT(cell, gates), AT(cell, output), AT(cell, inside), AT(cell, half_tanh),
        AT(cell, ids), AT(cell, table), AT(cell, weights), AT(cell, candidate_weights),
        AT(cell, below), AT(cell, below_weights), AT(cell, d_output), AT(cell, d_c),
        AT(cell, d_below), AT(cell, scratch),

        SIZE(dropout), AT(dropout, batch), AT(dropout, units), AT(dropout, mask),
        AT(dropout, below), AT(dropout, output), AT(dropout, d_output), AT(dropout, d_below),

        SIZE(attention), AT(attention, additive), AT(attention, batch), AT(attention, positions),
        AT(attention, query_units), AT(attention, memory_units), AT(attention, units),
        AT(attention, hidden_rows), AT(attention, query), AT(attention, values),
        AT(attention, keys), AT(attention, biases), AT(attention, query_weights), AT(attention, v),
        AT(attention, sources), AT(attention, weights), AT(attention, context),
        AT(attention, hidden), AT(attention, scratch), AT(attention, d_weights),
        AT(attention, d_context), AT(attention, d_scores), AT(attention, d_query),
        AT(attention, d_query_part), AT(attention, d_keys), AT(attention, d_v),

        SIZE(prediction), AT(prediction, batch), AT(prediction, time),
        AT(prediction, output_units), AT(prediction, memory_units), AT(prediction, vocabulary),
        AT(prediction, end), AT(prediction, ids), AT(prediction, sources), AT(prediction, all_ids),
        AT(prediction, mix), AT(prediction, mix_biases), AT(prediction, weights),
        AT(prediction, biases), AT(prediction, mixed), AT(prediction, logits),
    };
#undef SIZE
#undef AT
    for (size_t k = 0; k < sizeof(places) / sizeof(*places); k++)
        if (!strcmp(places[k].structure, structure) && !strcmp(places[k].field, field))
            return (int64_t)places[k].offset;
    return -1;
}

INLINED REAL sigmoid(REAL x) { return 1 / (1 + NAME(exponential)(-x)); }

INLINED REAL inner(int64_t size, const REAL *restrict a, const REAL *restrict b)
{
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < size; k++) sum += a[k] * b[k];
    return sum;
}

INLINED void add_scaled(int64_t size, REAL factor, const REAL *restrict a, REAL *restrict sum)
{
#pragma omp simd
    for (int64_t k = 0; k < size; k++) sum[k] += factor * a[k];
}

INLINED void softmax(int64_t size, REAL *restrict x)
{
    REAL most = x[0], sum = 0;
    for (int64_t k = 1; k < size; k++) most = x[k] > most ? x[k] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < size; k++) {
        x[k] = NAME(exponential)(x[k] - most);
        sum += x[k];
    }
    REAL scale = 1 / sum;
#pragma omp simd
    for (int64_t k = 0; k < size; k++) x[k] *= scale;
}

/* --- LSTM --- */

VECTORISED static void NAME(lstm_forward)(int64_t rows, int64_t units, const int64_t *lengths,
                                          int64_t t, REAL *restrict gates, const REAL *restrict c,
                                          REAL *restrict new_c, REAL *restrict half_tanh,
                                          REAL *restrict new_h)
{
    for (int64_t b = 0; b < rows;
         b++, c += units, new_c += units, half_tanh += units, new_h += units, gates += 4 * units) {
        REAL *restrict i = gates, *restrict j = i + units;
        REAL *restrict f = j + units, *restrict o = f + units;
        if (lengths && t >= lengths[b]) {
            /* c stays: f is 1, and the derivatives of all gates are 0. Nobody reads the output. */
            for (int64_t k = 0; k < units; k++) {
                i[k] = o[k] = new_h[k] = 0;
                j[k] = half_tanh[k] = (REAL)0.5;
                f[k] = 1;
                new_c[k] = c[k];
            }
            continue;
        }
#pragma omp simd
        for (int64_t k = 0; k < units; k++) {
            i[k] = sigmoid(i[k]), j[k] = sigmoid(2 * j[k]);
            f[k] = sigmoid(f[k]), o[k] = sigmoid(o[k]);
            new_c[k] = f[k] * c[k] + 4 * i[k] * j[k] - 2 * i[k];
            half_tanh[k] = sigmoid(new_c[k]);
            new_h[k] = 2 * o[k] * half_tanh[k] - o[k];
        }
    }
}

VECTORISED static void NAME(lstm_backward)(int64_t rows, int64_t units, REAL *restrict gates,
                                           const REAL *restrict c, const REAL *restrict half_tanh,
                                           const REAL *restrict d_h, REAL *restrict d_c)
{
    for (int64_t b = 0; b < rows;
         b++, c += units, half_tanh += units, d_h += units, d_c += units, gates += 4 * units) {
        REAL *restrict i = gates, *restrict j = i + units;
        REAL *restrict f = j + units, *restrict o = f + units;
#pragma omp simd
        for (int64_t k = 0; k < units; k++) {
            REAL input = i[k], twice_candidate = j[k], forget = f[k], out = o[k];
            REAL half = half_tanh[k];
            REAL d = d_c[k] + d_h[k] * 4 * out * half * (1 - half);
            i[k] = d * input * (1 - input) * (2 * twice_candidate - 1);
            j[k] = d * 4 * input * twice_candidate * (1 - twice_candidate);
            f[k] = d * forget * (1 - forget) * (REAL)0.5 * c[k];
            o[k] = d_h[k] * out * (1 - out) * (2 * half - 1);
            d_c[k] = d * forget;
        }
    }
}

/* --- GRU --- */

VECTORISED static void NAME(gru_reset)(int64_t rows, int64_t units, REAL *restrict gates,
                                       const REAL *restrict h, REAL *restrict reset_h)
{
    for (int64_t b = 0; b < rows; b++, gates += 3 * units, h += units, reset_h += units) {
        REAL *restrict r = gates, *restrict u = r + units;
#pragma omp simd
        for (int64_t k = 0; k < units; k++) {
            r[k] = sigmoid(r[k]), u[k] = sigmoid(u[k]);
            reset_h[k] = r[k] * h[k];
        }
    }
}

VECTORISED static void NAME(gru_forward)(int64_t rows, int64_t units, const int64_t *lengths,
                                         int64_t t, REAL *restrict gates, const REAL *restrict h,
                                         REAL *restrict new_h)
{
    for (int64_t b = 0; b < rows; b++, gates += 3 * units, h += units, new_h += units) {
        REAL *restrict r = gates, *restrict u = r + units, *restrict c = u + units;
        if (lengths && t >= lengths[b]) {
            for (int64_t k = 0; k < units; k++) {
                r[k] = c[k] = 0;
                u[k] = 1;
                new_h[k] = h[k];
            }
            continue;
        }
#pragma omp simd
        for (int64_t k = 0; k < units; k++) {
            c[k] = 2 * sigmoid(2 * c[k]) - 1;
            new_h[k] = u[k] * h[k] + (1 - u[k]) * c[k];
        }
    }
}

/* Computes the gradient of c, from which d_reset_h follows. r and u stay, for gru_backward. */
VECTORISED static void NAME(gru_candidate)(int64_t rows, int64_t units, REAL *restrict gates,
                                           const REAL *restrict d_h, REAL *restrict d_candidate)
{
    for (int64_t b = 0; b < rows; b++, gates += 3 * units, d_h += units, d_candidate += units) {
        REAL *restrict u = gates + units, *restrict c = u + units;
#pragma omp simd
        for (int64_t k = 0; k < units; k++)
            d_candidate[k] = d_h[k] * (1 - u[k]) * (1 - c[k] * c[k]);
    }
}

VECTORISED static void NAME(gru_backward)(int64_t rows, int64_t units, REAL *restrict gates,
                                          const REAL *restrict h, const REAL *restrict d_reset_h,
                                          const REAL *restrict d_candidate,
                                          const REAL *restrict d_h, REAL *restrict d_previous)
{
    for (int64_t b = 0; b < rows; b++, gates += 3 * units, h += units, d_reset_h += units,
                 d_candidate += units, d_h += units, d_previous += units) {
        REAL *restrict r = gates, *restrict u = r + units, *restrict c = u + units;
#pragma omp simd
        for (int64_t k = 0; k < units; k++) {
            REAL reset = r[k], update = u[k];
            d_previous[k] += d_h[k] * update + d_reset_h[k] * reset;
            r[k] = d_reset_h[k] * h[k] * reset * (1 - reset);
            u[k] = d_h[k] * (h[k] - c[k]) * update * (1 - update);
            c[k] = d_candidate[k];
        }
    }
}

/* --- a step of any cell --- */

/* The right factors of a cell's products. */
typedef struct {
    factor_t weights, candidate_weights, below_weights;
} factors_t;

static factors_t *NAME(factors)(const blas_t *blas, const char *transpose, const cell_t *cells,
                                int64_t count)
{
    const int forward = *transpose == 'N';
    factors_t *made = malloc((size_t)count * sizeof(factors_t));
    if (!made) abort();
    for (const cell_t *cell = cells; cell < cells + count; cell++) {
        const int64_t n = cell->batch, units = cell->units, width = (cell->gru ? 3 : 4) * units;
        const int64_t of_state = cell->gru ? 2 * units : width;
        const REAL *below = forward || cell->d_below ? cell->below_weights : 0;
        made[cell - cells] = (factors_t){
            factor(blas, transpose, n, forward ? units : of_state, forward ? of_state : units,
                   cell->weights),
            factor(blas, transpose, n, units, units, cell->candidate_weights),
            factor(blas, transpose, n, forward ? cell->below_units : width,
                   forward ? width : cell->below_units, below),
        };
    }
    return made;
}

static void NAME(free_factors)(factors_t *factors, int64_t count)
{
    for (int64_t k = 0; k < count; k++) {
        free(factors[k].weights.panels);
        free(factors[k].candidate_weights.panels);
        free(factors[k].below_weights.panels);
    }
    free(factors);
}

static void NAME(cell_forward)(const cell_t *cell, const factors_t *factors, int64_t t,
                               int64_t rows)
{
    const int64_t units = cell->units, width = (cell->gru ? 3 : 4) * units;
    const int64_t state = cell->batch * units;
    const int64_t before = (t + cell->before) % cell->inside_rows * state;
    const int64_t after = (t + cell->after) % cell->inside_rows * state;
    REAL *gates = cell->gates + t % cell->gate_rows * cell->batch * width;
    const REAL *h = cell->output + (t + cell->before) * state;
    REAL *new_h = cell->output + (t + cell->after) * state;
    if (cell->table)
        for (int64_t b = 0; b < rows; b++)
            memcpy(gates + b * width, cell->table + cell->ids[t * cell->batch + b] * width,
                   (size_t)width * sizeof(REAL));
    if (cell->below)
        multiply(&factors->below_weights, rows, cell->below + t * cell->batch * cell->below_units,
                 cell->below_units, gates, width);
    if (cell->gru) {
        REAL *reset_h = cell->inside + t % cell->inside_rows * state;
        multiply(&factors->weights, rows, h, units, gates, width);
        NAME(gru_reset)(rows, units, gates, h, reset_h);
        multiply(&factors->candidate_weights, rows, reset_h, units, gates + 2 * units, width);
        NAME(gru_forward)(rows, units, cell->lengths, t, gates, h, new_h);
    } else {
        multiply(&factors->weights, rows, h, units, gates, width);
        NAME(lstm_forward)(rows, units, cell->lengths, t, gates, cell->inside + before,
                           cell->inside + after, cell->half_tanh + after, new_h);
    }
}

static void NAME(cell_backward)(const cell_t *cell, const factors_t *factors, int64_t t,
                                int64_t rows)
{
    const int64_t units = cell->units, width = (cell->gru ? 3 : 4) * units;
    const int64_t state = cell->batch * units;
    REAL *gates = cell->gates + t * cell->batch * width;
    const REAL *h = cell->output + (t + cell->before) * state;
    const REAL *d_h = cell->d_output + (t + cell->after) * state;
    REAL *d_previous = cell->d_output + (t + cell->before) * state;
    if (cell->gru) {
        REAL *d_candidate = cell->scratch, *d_reset_h = d_candidate + state;
        NAME(gru_candidate)(rows, units, gates, d_h, d_candidate);
        memset(d_reset_h, 0, (size_t)(rows * units) * sizeof(REAL));
        multiply(&factors->candidate_weights, rows, d_candidate, units, d_reset_h, units);
        NAME(gru_backward)(rows, units, gates, h, d_reset_h, d_candidate, d_h, d_previous);
        multiply(&factors->weights, rows, gates, width, d_previous, units);
    } else {
        NAME(lstm_backward)(rows, units, gates, cell->inside + (t + cell->before) * state,
                            cell->half_tanh + (t + cell->after) * state, d_h, cell->d_c);
        multiply(&factors->weights, rows, gates, width, d_previous, units);
    }
    if (cell->d_below)
        multiply(&factors->below_weights, rows, gates, width,
                 cell->d_below + t * cell->batch * cell->below_units, cell->below_units);
}

/* --- dropout --- */

VECTORISED static void NAME(dropout_forward)(const dropout_t *dropout, int64_t t, int64_t rows)
{
    if (!dropout->mask) return;
    const int64_t first = t * dropout->batch * dropout->units;
    const REAL *restrict mask = dropout->mask + first, *restrict below = dropout->below + first;
    REAL *restrict output = dropout->output + first;
#pragma omp simd
    for (int64_t k = 0; k < rows * dropout->units; k++) output[k] = mask[k] * below[k];
}

VECTORISED static void NAME(dropout_backward)(const dropout_t *dropout, int64_t t, int64_t rows)
{
    if (!dropout->mask) return;
    const int64_t first = t * dropout->batch * dropout->units;
    const REAL *restrict mask = dropout->mask + first;
    const REAL *restrict d_output = dropout->d_output + first;
    REAL *restrict d_below = dropout->d_below + first;
#pragma omp simd
    for (int64_t k = 0; k < rows * dropout->units; k++) d_below[k] += mask[k] * d_output[k];
}

/* --- attention --- */

VECTORISED static void NAME(attend)(const attention_t *a, int64_t t, int64_t rows)
{
    const int64_t positions = a->positions, memory = a->memory_units, units = a->units;
    for (int64_t b = 0; b < rows; b++) {
        const REAL *query = a->query + (t * a->batch + b) * a->query_units;
        const int64_t source = a->sources ? a->sources[b] : b;
        const REAL *keys = a->keys + source * positions * units;
        const REAL *values = a->values + source * positions * memory;
        REAL *weights = a->weights + (t * a->batch + b) * positions;
        REAL *context = a->context + ((t + 1) * a->batch + b) * memory;
        if (a->additive) {
            const REAL *projected = a->scratch + b * units;
            REAL *hidden = a->hidden + (t % a->hidden_rows * a->batch + b) * positions * units;
            for (int64_t s = 0; s < positions; s++, keys += units, hidden += units) {
                const REAL *restrict key = keys, *restrict q = projected;
                REAL *restrict h = hidden;
#pragma omp simd
                for (int64_t k = 0; k < units; k++) h[k] = sigmoid(key[k] + q[k]);
                weights[s] = inner(units, hidden, a->v);
            }
        } else {
            for (int64_t s = 0; s < positions; s++)
                weights[s] = inner(units, keys + s * units, query);
        }
        for (int64_t s = 0; s < positions; s++) weights[s] += a->biases[source * positions + s];
        softmax(positions, weights);
        memset(context, 0, (size_t)memory * sizeof(REAL));
        for (int64_t s = 0; s < positions; s++)
            add_scaled(memory, weights[s], values + s * memory, context);
    }
}

VECTORISED static void NAME(attend_backward)(const attention_t *a, int64_t t, int64_t rows)
{
    const int64_t positions = a->positions, memory = a->memory_units, units = a->units;
    for (int64_t b = 0; b < rows; b++) {
        const REAL *keys = a->keys + b * positions * units;
        const REAL *values = a->values + b * positions * memory;
        const REAL *weights = a->weights + (t * a->batch + b) * positions;
        const REAL *d_context = a->d_context + ((t + 1) * a->batch + b) * memory;
        REAL *d_scores = a->d_scores + (t * a->batch + b) * positions;
        REAL *d_query = a->d_query + (t * a->batch + b) * a->query_units;
        REAL mean = 0;
        for (int64_t s = 0; s < positions; s++) {
            REAL d_weight = inner(memory, d_context, values + s * memory);
            if (a->d_weights) d_weight += a->d_weights[(t * a->batch + b) * positions + s];
            d_scores[s] = d_weight;
            mean += weights[s] * d_weight;
        }
        for (int64_t s = 0; s < positions; s++) d_scores[s] = weights[s] * (d_scores[s] - mean);
        if (!a->additive) {
            for (int64_t s = 0; s < positions; s++)
                add_scaled(units, d_scores[s], keys + s * units, d_query);
            continue;
        }
        REAL *restrict d_part = a->d_query_part + (t * a->batch + b) * units;
        REAL *restrict d_v = a->d_v;
        memset(d_part, 0, (size_t)units * sizeof(REAL));
        for (int64_t s = 0; s < positions; s++) {
            const REAL *restrict hidden = a->hidden + ((t * a->batch + b) * positions + s) * units;
            REAL *restrict d_key = a->d_keys + (b * positions + s) * units, d_score = d_scores[s];
#pragma omp simd
            for (int64_t k = 0; k < units; k++) {
                REAL d = d_score * hidden[k] * (1 - hidden[k]);
                d_v[k] += d_score * hidden[k];
                d_part[k] += d;
                d_key[k] += d;
            }
        }
        const REAL *restrict v = a->v;
#pragma omp simd
        for (int64_t k = 0; k < units; k++) d_part[k] *= v[k];
    }
}

/* Returns the right factor of the queries of additive attention, or, for "T", of the gradients of
   the projected queries. */
static factor_t NAME(query_factor)(const blas_t *blas, const char *transpose, const attention_t *a)
{
    if (!a || !a->additive) return factor(blas, transpose, 0, 0, 0, 0);
    const int forward = *transpose == 'N';
    return factor(blas, transpose, a->batch, forward ? a->query_units : a->units,
                  forward ? a->units : a->query_units, a->query_weights);
}

static void NAME(attention_forward)(const attention_t *a, const factor_t *of_query, int64_t t,
                                    int64_t rows)
{
    if (a->additive) {
        memset(a->scratch, 0, (size_t)(rows * a->units) * sizeof(REAL));
        multiply(of_query, rows, a->query + t * a->batch * a->query_units, a->query_units,
                 a->scratch, a->units);
    }
    NAME(attend)(a, t, rows);
}

static void NAME(attention_backward)(const attention_t *a, const factor_t *of_query, int64_t t,
                                     int64_t rows)
{
    NAME(attend_backward)(a, t, rows);
    if (a->additive)
        multiply(of_query, rows, a->d_query_part + t * a->batch * a->units, a->units,
                 a->d_query + t * a->batch * a->query_units, a->query_units);
}

/* --- the loops --- */

/* Runs `count` layers, each over the outputs of the one below, and attention over those of the
   last, if there is any. With attention, a dropout stands before each layer and before attention.
   A layer alone may go backwards in time: its `before` is then 1. */
EXPORTED void NAME(forward)(const blas_t *blas, const cell_t *cells, int64_t count,
                            const dropout_t *dropouts, const attention_t *attention, int64_t time,
                            const int64_t *rows)
{
    factors_t *factors = NAME(factors)(blas, "N", cells, count);
    factor_t of_query = NAME(query_factor)(blas, "N", attention);
    for (int64_t step = 0; step < time; step++) {
        const int64_t t = cells->before ? time - 1 - step : step;
        for (int64_t k = 0; k < count; k++) {
            if (attention) NAME(dropout_forward)(&dropouts[k], t, rows[t]);
            NAME(cell_forward)(&cells[k], &factors[k], t, rows[t]);
        }
        if (!attention) continue;
        NAME(dropout_forward)(&dropouts[count], t, rows[t]);
        NAME(attention_forward)(attention, &of_query, t, rows[t]);
    }
    free(of_query.panels);
    NAME(free_factors)(factors, count);
}

EXPORTED void NAME(backward)(const blas_t *blas, const cell_t *cells, int64_t count,
                             const dropout_t *dropouts, const attention_t *attention, int64_t time,
                             const int64_t *rows)
{
    factors_t *factors = NAME(factors)(blas, "T", cells, count);
    factor_t of_query = NAME(query_factor)(blas, "T", attention);
    for (int64_t step = time - 1; step >= 0; step--) {
        const int64_t t = cells->before ? time - 1 - step : step;
        if (attention) {
            NAME(attention_backward)(attention, &of_query, t, rows[t]);
            NAME(dropout_backward)(&dropouts[count], t, rows[t]);
        }
        for (int64_t k = count - 1; k >= 0; k--) {
            NAME(cell_backward)(&cells[k], &factors[k], t, rows[t]);
            if (attention) NAME(dropout_backward)(&dropouts[k], t, rows[t]);
        }
    }
    free(of_query.panels);
    NAME(free_factors)(factors, count);
}

/* --- greedy decoding --- */

VECTORISED static void NAME(hyperbolic_tangent)(int64_t size, REAL *restrict x)
{
#pragma omp simd
    for (int64_t k = 0; k < size; k++) x[k] = 2 * sigmoid(2 * x[k]) - 1;
}

/* Returns the first index of the largest number. */
VECTORISED static int64_t NAME(likeliest)(int64_t size, const REAL *restrict x)
{
    REAL most = x[0];
#pragma omp simd reduction(max : most)
    for (int64_t k = 1; k < size; k++) most = x[k] > most ? x[k] : most;
    for (int64_t k = 0; k < size; k++)
        if (x[k] == most) return k;
    return 0;
}

/* The right factors of a prediction's products. */
typedef struct {
    factor_t of_output, of_context, to_logits;
} NAME(predictor_t);

/* Predicts the next ids from outputs [B, H] and contexts [B, M]. */
static void NAME(predict)(const prediction_t *p, const NAME(predictor_t) *factors,
                          const REAL *output, const REAL *context, int64_t t, int64_t rows)
{
    const int64_t units = p->output_units, vocabulary = p->vocabulary;
    if (p->mix) {
        for (int64_t b = 0; b < rows; b++)
            memcpy(p->mixed + b * units, p->mix_biases, (size_t)units * sizeof(REAL));
        multiply(&factors->of_output, rows, output, units, p->mixed, units);
        multiply(&factors->of_context, rows, context, p->memory_units, p->mixed, units);
        NAME(hyperbolic_tangent)(rows * units, p->mixed);
        output = p->mixed;
    }
    for (int64_t b = 0; b < rows; b++)
        memcpy(p->logits + b * vocabulary, p->biases, (size_t)vocabulary * sizeof(REAL));
    multiply(&factors->to_logits, rows, output, units, p->logits, vocabulary);
    for (int64_t b = 0; b < rows; b++) {
        p->ids[b] = NAME(likeliest)(vocabulary, p->logits + b * vocabulary);
        p->all_ids[p->sources[b] * p->time + t] = p->ids[b];
    }
}

/* Copies row b of a tensor [B, size] to an earlier row. */
INLINED void NAME(move)(REAL *rows, int64_t size, int64_t b, int64_t to)
{
    memcpy(rows + to * size, rows + b * size, (size_t)size * sizeof(REAL));
}

/* Moves the rows that have not ended to the beginning, and returns their number. */
static int64_t NAME(leave_out_ended)(const prediction_t *p, const cell_t *cells, int64_t count,
                                     REAL *context, int64_t rows)
{
    int64_t live = 0;
    for (int64_t b = 0; b < rows; b++) {
        if (p->ids[b] == p->end) continue;
        if (live < b) {
            for (const cell_t *cell = cells; cell < cells + count; cell++) {
                const int64_t made = cell->after * cell->batch * cell->units;
                NAME(move)(cell->output + made, cell->units, b, live);
                if (!cell->gru) NAME(move)(cell->inside + made, cell->units, b, live);
            }
            if (context) NAME(move)(context, p->memory_units, b, live);
            p->ids[live] = p->ids[b], p->sources[live] = p->sources[b];
        }
        live++;
    }
    return live;
}

/* Runs the steps of `forward` on the ids that it predicts. The buffers hold one step, so that t is
   0 for all of them but all_ids; the two rows of a state buffer take turns. */
EXPORTED void NAME(greedy)(const blas_t *blas, cell_t *cells, int64_t count, attention_t *attention,
                           const prediction_t *p)
{
    const int64_t units = p->output_units, memory = p->memory_units;
    factors_t *factors = NAME(factors)(blas, "N", cells, count);
    factor_t of_query = NAME(query_factor)(blas, "N", attention);
    NAME(predictor_t) predictor = {
        factor(blas, "N", p->batch, units, units, p->mix),
        factor(blas, "N", p->batch, memory, units, p->mix ? p->mix + units * units : 0),
        factor(blas, "T", p->batch, units, p->vocabulary, p->weights),
    };
    REAL *context = attention ? attention->context + p->batch * memory : 0;
    int64_t rows = p->batch;
    for (int64_t t = 0; t < p->time && rows; t++) {
        const REAL *output = 0;
        for (cell_t *cell = cells; cell < cells + count; cell++) {
            cell->before = t % 2, cell->after = 1 - cell->before;
            if (output) cell->below = output;
            NAME(cell_forward)(cell, &factors[cell - cells], 0, rows);
            output = cell->output + cell->after * cell->batch * cell->units;
        }
        if (attention) {
            attention->query = output;
            NAME(attention_forward)(attention, &of_query, 0, rows);
        }
        NAME(predict)(p, &predictor, output, context, t, rows);
        rows = NAME(leave_out_ended)(p, cells, count, context, rows);
    }
    free(predictor.of_output.panels);
    free(predictor.of_context.panels);
    free(predictor.to_logits.panels);
    free(of_query.panels);
    NAME(free_factors)(factors, count);
}

#undef gemm_t
#undef blas_t
#undef cell_t
#undef dropout_t
#undef attention_t
#undef prediction_t
#undef factor_t
#undef product_t
#undef factors_t
#undef vector_t
#undef factor
#undef multiply
#undef sigmoid
#undef softmax
#undef inner
#undef add_scaled

#endif
