/* Matrix products of loops.c's REAL: by BLAS, or by panels on one thread of a processor with
   vectors of 512 bits.

   A panel holds some columns of the right factor, row by row. A tile of the result is some rows of
   these columns, as many as the registers hold. It is the sum, over all q, of column q of the left
   factor times row q of the panel. */

typedef void (*gemm_t)(const char *, const char *, const int *, const int *, const int *,
                       const REAL *, const REAL *, const int *, const REAL *, const int *,
                       const REAL *, REAL *, const int *);

/* BLAS, and its number of threads: panels are used with one only. */
typedef struct {
    gemm_t gemm;
    int64_t threads;
} blas_t;

/* The right factor of many products: b [k, m], or with "T" the transpose of b [m, k]. Its panels,
   if there are any, are [m / PANEL, k, PANEL], zero past the last column, and `copy` has room for a
   left factor. */
typedef struct {
    const blas_t *blas;
    const char *transpose;
    int64_t k, m;
    const REAL *b;
    REAL *panels, *copy;
} factor_t;

/* A product c [n, m] = start + a b. Element (i, q) of a [n, k] is a[i * a_row + q * a_column], and
   b [k, m] is read likewise. One of the two strides of each is 1. The start is [n, m], [m] with a
   start_row of 0, or null for zeros. */
typedef struct {
    int64_t n, k, m, a_row, a_column, b_row, b_column, start_row, c_row;
    const REAL *a, *b, *start;
    REAL *c;
} product_t;

#ifdef PANELS

typedef REAL vector_t __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

/* Copies `count` rows of a left factor column by column, or `count` columns of a right factor row
   by row: to [depth, width], zero past the count. */
INLINED void NAME(pack)(int64_t count, int64_t depth, int64_t width, const REAL *from, int64_t row,
                        int64_t column, REAL *restrict to)
{
    const int64_t line = VECTOR_BYTES / (int64_t)sizeof(REAL);
    if (count < width) memset(to, 0, (size_t)(depth * width) * sizeof(REAL));
    if (row == 1) {
        for (int64_t q = 0; q < depth; q++)
            for (int64_t i = 0; i < count; i++) to[q * width + i] = from[q * column + i];
        return;
    }
    for (int64_t first = 0; first < depth; first += line) /* a cache line at a time */
        for (int64_t i = 0; i < count; i++)
            for (int64_t q = first; q < first + line && q < depth; q++)
                to[q * width + i] = from[i * row + q * column];
}

PANELS static void NAME(pack_panel)(int64_t columns, int64_t depth, const REAL *b, int64_t b_row,
                                    int64_t b_column, REAL *to)
{
    if (columns == PANEL) /* a width that the compiler knows */
        NAME(pack)(PANEL, depth, PANEL, b, b_column, b_row, to);
    else
        NAME(pack)(columns, depth, PANEL, b, b_column, b_row, to);
}

/* c [rows, PANEL] = start + a [rows, depth] panel. */
INLINED void NAME(tile)(int64_t rows, int64_t depth, const REAL *a, int64_t a_row, int64_t a_column,
                        const REAL *panel, const REAL *start, int64_t start_row, REAL *c,
                        int64_t c_row)
{
    const int64_t half = PANEL / 2;
    vector_t left[TILE], right[TILE];
    for (int64_t i = 0; i < rows; i++) {
        left[i] = *(const vector_t *)(start + i * start_row);
        right[i] = *(const vector_t *)(start + i * start_row + half);
    }
    for (int64_t q = 0; q < depth; q++, panel += PANEL) {
        const vector_t panel_left = *(const vector_t *)panel;
        const vector_t panel_right = *(const vector_t *)(panel + half);
        for (int64_t i = 0; i < rows; i++) {
            left[i] += a[i * a_row + q * a_column] * panel_left;
            right[i] += a[i * a_row + q * a_column] * panel_right;
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        *(vector_t *)(c + i * c_row) = left[i];
        *(vector_t *)(c + i * c_row + half) = right[i];
    }
}

/* Calls `tile` with a constant number of rows, so that all sums are in registers. A packed tile of
   a lies column by column. */
PANELS static void NAME(tiles)(int64_t packed, int64_t rows, int64_t depth, const REAL *a,
                               int64_t a_row, const REAL *panel, const REAL *start,
                               int64_t start_row, REAL *c, int64_t c_row)
{
#define COUNT(n)                                                                          \
    case n:                                                                               \
        if (packed)                                                                       \
            NAME(tile)(n, depth, a, 1, n, panel, start, start_row, c, c_row);             \
        else                                                                              \
            NAME(tile)(n, depth, a, a_row, 1, panel, start, start_row, c, c_row);         \
        break;
    switch (rows) { COUNTS }
#undef COUNT
}

/* Calls `pack` for a tile of a left factor with a constant number of rows. */
PANELS static void NAME(pack_tile)(int64_t rows, int64_t depth, const REAL *a, int64_t a_row,
                                   int64_t a_column, REAL *to)
{
#define COUNT(n)                                          \
    case n:                                               \
        NAME(pack)(n, depth, n, a, a_row, a_column, to);  \
        break;
    switch (rows) { COUNTS }
#undef COUNT
}

/* Returns the height of the next tile of `rows` rows, such that all tiles are about equally
   high. */
static int64_t NAME(next_tile)(int64_t rows)
{
    const int64_t tiles = (rows + TILE - 1) / TILE;
    return (rows + tiles - 1) / tiles;
}

/* Computes the first columns of c [n, PANEL] = start + a [n, depth] panel. A packed a consists of
   tiles, one below the other. */
static void NAME(multiply_panel)(int64_t packed, int64_t n, int64_t depth, int64_t columns,
                                 const REAL *a, int64_t a_row, const REAL *panel, const REAL *start,
                                 int64_t start_row, REAL *c, int64_t c_row)
{
    int64_t rows;
    for (int64_t i = 0; i < n;
         i += rows, a += rows * a_row, start += rows * start_row, c += rows * c_row) {
        rows = NAME(next_tile)(n - i);
        if (columns == PANEL) {
            NAME(tiles)(packed, rows, depth, a, a_row, panel, start, start_row, c, c_row);
            continue;
        }
        REAL sums[TILE * PANEL] = {0};
        for (int64_t r = 0; r < rows; r++)
            memcpy(sums + r * PANEL, start + r * start_row, (size_t)columns * sizeof(REAL));
        NAME(tiles)(packed, rows, depth, a, a_row, panel, sums, PANEL, sums, PANEL);
        for (int64_t r = 0; r < rows; r++)
            memcpy(c + r * c_row, sums + r * PANEL, (size_t)columns * sizeof(REAL));
    }
}

/* Makes the panels of a factor, for products with up to n rows. It makes none if there are more
   threads, no vectors of 512 bits, or too little memory. */
static void NAME(make_panels)(factor_t *factor, int64_t n)
{
    const int64_t k = factor->k, m = factor->m, panels = (m + PANEL - 1) / PANEL;
    const int64_t line = VECTOR_BYTES / (int64_t)sizeof(REAL);
    const int64_t row = *factor->transpose == 'N' ? m : 1;
    const int64_t column = *factor->transpose == 'N' ? 1 : k;
    const size_t size = (size_t)(panels * k * PANEL + n * (k + line)) * sizeof(REAL);
    if (factor->blas->threads == 1 && __builtin_cpu_supports("avx512f"))
        factor->panels = aligned_alloc(VECTOR_BYTES, size + -size % VECTOR_BYTES);
    if (!factor->panels) return;
    factor->copy = factor->panels + panels * k * PANEL;
    for (int64_t j = 0; j < m; j += PANEL)
        NAME(pack_panel)(m - j < PANEL ? m - j : PANEL, k, factor->b + j * column, row, column,
                         factor->panels + j * k);
}

static void NAME(multiply_panels)(const factor_t *factor, int64_t n, const REAL *a, int64_t a_row,
                                  REAL *c, int64_t c_row)
{
    const int64_t k = factor->k, m = factor->m, copy_row = k + VECTOR_BYTES / (int64_t)sizeof(REAL);
    if (a_row * (int64_t)sizeof(REAL) % PAGE == 0) {
        for (int64_t i = 0; i < n; i++)
            memcpy(factor->copy + i * copy_row, a + i * a_row, (size_t)k * sizeof(REAL));
        a = factor->copy, a_row = copy_row;
    }
    for (int64_t j = 0; j < m; j += PANEL) {
        const int64_t columns = m - j < PANEL ? m - j : PANEL;
        NAME(multiply_panel)(0, n, k, columns, a, a_row, factor->panels + j * k, c + j, c_row,
                             c + j, c_row);
    }
}

/* Computes a product, DEPTH of the inner size and HEIGHT rows at a time. */
EXPORTED PANELS void NAME(product)(const product_t *p)
{
    static const REAL zeros[PANEL] = {0};
    const int64_t packed = p->a_column != 1 || p->a_row * (int64_t)sizeof(REAL) % PAGE == 0;
    REAL *panel = aligned_alloc(VECTOR_BYTES, (size_t)(DEPTH * (PANEL + HEIGHT)) * sizeof(REAL));
    if (!panel) abort();
    REAL *tiles = panel + DEPTH * PANEL;
    for (int64_t q = 0; q < p->k; q += DEPTH) {
        const int64_t depth = p->k - q < DEPTH ? p->k - q : DEPTH;
        const REAL *start = q ? p->c : p->start;
        const int64_t start_row = q ? p->c_row : p->start_row;
        for (int64_t top = 0; top < p->n; top += HEIGHT) {
            const int64_t height = p->n - top < HEIGHT ? p->n - top : HEIGHT;
            const REAL *a = p->a + top * p->a_row + q * p->a_column;
            int64_t rows;
            for (int64_t i = 0; packed && i < height; i += rows) {
                rows = NAME(next_tile)(height - i);
                NAME(pack_tile)(rows, depth, a + i * p->a_row, p->a_row, p->a_column,
                                tiles + i * depth);
            }
            for (int64_t j = 0; j < p->m; j += PANEL) {
                const int64_t columns = p->m - j < PANEL ? p->m - j : PANEL;
                NAME(pack_panel)(columns, depth, p->b + q * p->b_row + j * p->b_column, p->b_row,
                                 p->b_column, panel);
                NAME(multiply_panel)(packed, height, depth, columns, packed ? tiles : a,
                                     packed ? depth : p->a_row, panel,
                                     start ? start + top * start_row + j : zeros,
                                     start ? start_row : 0, p->c + top * p->c_row + j, p->c_row);
            }
        }
    }
    free(panel);
}

#endif

/* Returns a right factor for products with up to n rows. */
static factor_t factor(const blas_t *blas, const char *transpose, int64_t n, int64_t k, int64_t m,
                       const REAL *b)
{
    factor_t made = {blas, transpose, k, m, b, 0, 0};
#ifdef PANELS
    if (b) NAME(make_panels)(&made, n);
#endif
    return made;
}

/* Computes c [n, m] += a [n, k] b. Rows of a are `a_row` numbers apart, and rows of c `c_row`. */
static void multiply(const factor_t *b, int64_t n, const REAL *a, int64_t a_row, REAL *c,
                     int64_t c_row)
{
#ifdef PANELS
    if (b->panels) {
        NAME(multiply_panels)(b, n, a, a_row, c, c_row);
        return;
    }
#endif
    /* BLAS stores matrices column by column, hence the order of a and b. */
    const int rows = (int)n, inner_size = (int)b->k, columns = (int)b->m;
    const int a_step = (int)a_row, c_step = (int)c_row;
    const REAL one = 1;
    b->blas->gemm(b->transpose, "N", &columns, &rows, &inner_size, &one, b->b,
                  *b->transpose == 'T' ? &inner_size : &columns, a, &a_step, &one, c, &c_step);
}
