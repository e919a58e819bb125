/* Functions of one number by table; sums and products of tensors at scales of their own. */
#include "kernels.h"

void mps_look_up(const mps_lookup *s, const void *input, void *output) {
    const int segment = s->segment;
    for (size_t i = 0; i < s->count; i++) {
        const int32_t place = mps_get(input, MPS_I16, i) + 32768;
        const int16_t *knot = s->table + (place >> segment);
        const int32_t rest = place & ((1 << segment) - 1);
        const int64_t line = knot[0] * (INT64_C(1) << segment) + (knot[1] - knot[0]) * rest;
        mps_set(output, s->output_type, i,
                mps_clip(mps_shift_round(line, segment + s->fraction) + s->output_zero, s->low,
                         s->high));
    }
}

void mps_compare(const mps_interval *s, const void *input, void *output) {
    for (size_t i = 0; i < s->count; i++) {
        const int32_t q = mps_get(input, s->input_type, i);
        const int is_inside = q >= s->first && q <= s->last;
        mps_set(output, s->output_type, i, is_inside ? s->inside : s->outside);
    }
}

/* Where the operands of a grid are. */
typedef struct {
    int32_t index[MPS_DIMS];
    ptrdiff_t at[MPS_OPERANDS];
} walk;

/* The number of lines along the last axis. */
static size_t lines_of(const mps_grid *grid) {
    size_t count = 1;
    for (int d = 0; d < grid->dims - 1; d++)
        count *= (size_t)grid->shape[d];
    return count;
}

/* The start of the next line. */
static void next_line(const mps_grid *grid, walk *w) {
    for (int d = grid->dims - 2; d >= 0; d--) {
        for (int k = 0; k < MPS_OPERANDS; k++)
            w->at[k] += grid->strides[k][d];
        if (++w->index[d] < grid->shape[d])
            return;
        w->index[d] = 0;
        for (int k = 0; k < MPS_OPERANDS; k++)
            w->at[k] -= (ptrdiff_t)grid->shape[d] * grid->strides[k][d];
    }
}

/* Element `i` of operand `k` on the line. */
static inline size_t element(const mps_grid *grid, const walk *w, int k, int32_t i) {
    return (size_t)(w->at[k] + (ptrdiff_t)i * grid->strides[k][grid->dims - 1]);
}

void mps_combine(const mps_affine *s, const void *a, const void *b, void *output) {
    const mps_grid *grid = &s->grid;
    const int32_t length = grid->shape[grid->dims - 1];
    walk w = {{0}, {0}};
    for (size_t line = lines_of(grid); line > 0; line--, next_line(grid, &w))
        for (int32_t i = 0; i < length; i++) {
            int64_t sum = (int64_t)mps_get(a, s->types[0], element(grid, &w, 1, i)) *
                          s->multipliers[0][element(grid, &w, 2, i)];
            sum += s->offset[element(grid, &w, 3, i)] * (INT64_C(1) << s->raise);
            if (b != NULL)
                sum += (int64_t)mps_get(b, s->types[1], element(grid, &w, 4, i)) *
                       s->multipliers[1][element(grid, &w, 5, i)];
            mps_set(output, s->output_type, element(grid, &w, 0, i),
                    mps_clip(mps_shift_round(sum, s->shift) + s->output_zero, s->low, s->high));
        }
}

void mps_transform(const mps_affine *s, const void *a, void *output) {
    mps_combine(s, a, NULL, output);
}

void mps_times(const mps_product *s, const void *a, const void *b, void *output) {
    const mps_grid *grid = &s->grid;
    const int32_t length = grid->shape[grid->dims - 1];
    walk w = {{0}, {0}};
    for (size_t line = lines_of(grid); line > 0; line--, next_line(grid, &w))
        for (int32_t i = 0; i < length; i++) {
            const int32_t product = mps_get(a, MPS_I16, element(grid, &w, 1, i)) *
                                    mps_get(b, MPS_I16, element(grid, &w, 2, i));
            const int64_t scaled = mps_rescale(product, s->multiplier, s->shift, 0);
            mps_set(output, s->output_type, element(grid, &w, 0, i),
                    mps_clip(scaled + s->output_zero, s->low, s->high));
        }
}

void mps_prelu(const mps_slopes *s, const void *input, void *output) {
    const mps_grid *grid = &s->grid;
    const int32_t length = grid->shape[grid->dims - 1];
    walk w = {{0}, {0}};
    for (size_t line = lines_of(grid); line > 0; line--, next_line(grid, &w))
        for (int32_t i = 0; i < length; i++) {
            const int32_t x = mps_get(input, MPS_I16, element(grid, &w, 1, i));
            const int32_t slope = x < 0 ? s->negative[element(grid, &w, 2, i)] : s->positive;
            const int64_t scaled = mps_shift_round((int64_t)x * slope, s->shift);
            mps_set(output, s->output_type, element(grid, &w, 0, i),
                    mps_clip(scaled + s->output_zero, s->low, s->high));
        }
}
