/* Norms of rows, and products of two activations. */
#include "kernels.h"

/* p with p * 2^(-46 - j) near 1 / sqrt(value), value in [1, 2^61]; j is written. */
static int64_t inverse_root(int64_t value, int *j) {
    int length = 0;
    int64_t mantissa, root = 0, inverse;
    while (value >> length > 1)
        length++;
    *j = length >= 30 ? (length - 30) / 2 : -((31 - length) / 2);
    mantissa = *j >= 0 ? value >> (2 * *j) : value << (-2 * *j);
    for (int bit = 30; bit >= 0; bit--) {
        const int64_t tried = root + (INT64_C(1) << bit);
        if (tried * tried <= mantissa << 30)
            root = tried;
    }
    inverse = (INT64_C(1) << 61) / root;
    return inverse < INT32_MAX ? inverse : INT32_MAX;
}

void mps_normalize(const mps_normalization *s, const void *input, void *output) {
    const size_t length = (size_t)s->length, inner = (size_t)s->inner;
    for (size_t row = 0; row < (size_t)s->rows; row++) {
        const size_t start = row * length;
        int64_t total = 0, squares = 0, whole = 0, rest = 0, part, variance, inverse, mean;
        int j;
        for (size_t i = start; i < start + length; i++) {
            const int64_t code = mps_get(input, s->input_type, i);
            total += code;
            squares += code * code;
        }
        if (s->centred) {
            whole = total / s->length, rest = total % s->length;
            if (rest < 0)
                rest += s->length, whole -= 1;
            squares -= whole * (total + rest);
        }
        part = rest * 65536 / s->length;
        variance = mps_divide_round(squares * 256, s->length) - mps_shift_round(part * part, 24);
        variance += s->added;
        inverse = inverse_root(variance > 1 ? variance : 1, &j);
        mean = whole * 4096 + mps_divide_round(rest * 4096, s->length);
        for (size_t i = start; i < start + length; i++) {
            const size_t channel = i / inner % (size_t)s->channels;
            const int64_t apart = (int64_t)mps_get(input, s->input_type, i) * 4096 - mean;
            const int64_t normal = mps_shift_round(apart * inverse, 36 + j);
            const int64_t sum =
                normal * s->multipliers[channel] + s->offsets[channel] * (INT64_C(1) << s->raised);
            mps_set(output, s->output_type, i,
                    mps_clip(mps_shift_round(sum, s->shift) + s->output_zero, s->low, s->high));
        }
    }
}

void mps_multiply_matrices(const mps_matrix_product *s, const void *left, const void *right,
                           void *output) {
    const size_t rows = (size_t)s->rows, terms = (size_t)s->terms, columns = (size_t)s->columns;
    for (size_t at = 0; at < (size_t)s->matrices * rows * columns; at++) {
        const size_t row = at / columns, column = at % columns;
        const size_t first = row / rows * terms * columns + column;
        int64_t sum = 0;
        for (size_t k = 0; k < terms; k++) {
            const int64_t a = mps_get(left, s->left_type, row * terms + k) - s->left_zero;
            const int64_t b = mps_get(right, s->right_type, first + k * columns) - s->right_zero;
            sum += a * b;
        }
        sum = mps_rescale(sum, s->multiplier, s->shift, s->pre_shift) + s->output_zero;
        mps_set(output, s->output_type, at, mps_clip(sum, s->low, s->high));
    }
}
