/* Between the layers: mean, moves, softmax, arg-max. */
#include "kernels.h"

static size_t number_of(int dims, const int32_t *shape) {
    size_t count = 1;
    for (int d = 0; d < dims; d++)
        count *= (size_t)shape[d];
    return count;
}

/* The offset of element `index` of a box with these strides. */
static int64_t place(size_t index, int dims, const int32_t *shape, const int32_t *strides) {
    int64_t offset = 0;
    for (int d = dims - 1; d >= 0; d--) {
        offset += (int64_t)(index % (size_t)shape[d]) * strides[d];
        index /= (size_t)shape[d];
    }
    return offset;
}

/* The sum of what one mean is taken of. */
static int64_t sum_from(const mps_means *s, const void *input, int64_t start, size_t count) {
    const int32_t apart = s->mean_strides[0];
    int64_t sum = 0;
    if (s->mean_dims == 1 && s->type == MPS_U8) {
        const unsigned char *code = (const unsigned char *)input + start;
        for (size_t k = 0; k < count; k++, code += apart)
            sum += *code;
    } else if (s->mean_dims == 1) {
        for (size_t k = 0; k < count; k++, start += apart)
            sum += mps_get(input, s->type, (size_t)start);
    } else {
        for (size_t k = 0; k < count; k++)
            sum +=
                mps_get(input, s->type,
                        (size_t)(start + place(k, s->mean_dims, s->mean_shape, s->mean_strides)));
    }
    return sum;
}

void mps_mean(const mps_means *s, const void *input, void *output) {
    const size_t kept = number_of(s->kept_dims, s->kept_shape);
    const size_t count = number_of(s->mean_dims, s->mean_shape);
    for (size_t i = 0; i < kept; i++) {
        const int64_t start = place(i, s->kept_dims, s->kept_shape, s->kept_strides);
        const int64_t sum = sum_from(s, input, start, count);
        mps_set(output, s->output_type, i,
                s->scaling.multipliers == NULL
                    ? (int32_t)mps_divide_round(sum, (int64_t)count)
                    : mps_scaled_mean(&s->scaling, sum, (int64_t)count, 0));
    }
}

/* Elements of `size` bytes, which is a constant of each call. */
static inline void copy_strided(unsigned char *to, int32_t to_stride, const unsigned char *from,
                                int32_t from_stride, int32_t count, size_t size) {
    for (int32_t k = 0; k < count; k++) {
        memcpy(to, from, size);
        to += (ptrdiff_t)size * to_stride, from += (ptrdiff_t)size * from_stride;
    }
}

void mps_move(const mps_movement *s, const void *input, void *output) {
    const int outer = s->dims - 1; /* the last axis is the inner loop */
    const size_t count = number_of(outer, s->shape);
    const int32_t length = s->shape[outer];
    const int32_t from_stride = s->from_strides[outer], to_stride = s->to_strides[outer];
    int32_t index[MPS_DIMS] = {0};
    ptrdiff_t from = (ptrdiff_t)s->from_start, to = (ptrdiff_t)s->to_start;
    for (size_t i = 0; i < count; i++) {
        const unsigned char *source = (const unsigned char *)input + from * (ptrdiff_t)s->size;
        unsigned char *target = (unsigned char *)output + to * (ptrdiff_t)s->size;
        if (from_stride == 1 && to_stride == 1)
            memcpy(target, source, (size_t)length * s->size);
        else if (s->size == 1)
            copy_strided(target, to_stride, source, from_stride, length, 1);
        else
            copy_strided(target, to_stride, source, from_stride, length, s->size);
        for (int d = outer - 1; d >= 0; d--) { /* the next element of the outer axes */
            from += s->from_strides[d], to += s->to_strides[d];
            if (++index[d] < s->shape[d])
                break;
            index[d] = 0;
            from -= (ptrdiff_t)s->shape[d] * s->from_strides[d];
            to -= (ptrdiff_t)s->shape[d] * s->to_strides[d];
        }
    }
}

void mps_gather(const mps_gathering *s, const void *input, void *output) {
    const size_t count = number_of(s->dims, s->shape);
    for (size_t i = 0; i < count; i++) {
        const int32_t *table = s->offsets;
        size_t rest = i, inner = count, from = s->start, to = 0;
        for (int d = 0; d < s->dims; d++) {
            inner /= (size_t)s->shape[d];
            from += (size_t)table[rest / inner];
            to += rest / inner * (size_t)s->to_strides[d];
            rest %= inner;
            table += s->shape[d];
        }
        memcpy((unsigned char *)output + to * s->size,
               (const unsigned char *)input + from * s->size, s->run * s->size);
    }
}

void mps_fill(mps_type type, size_t count, int32_t value, void *output) {
    if (type == MPS_U8)
        memset(output, value, count);
    else
        for (size_t i = 0; i < count; i++)
            mps_set(output, type, i, value);
}

#define FRACTION 20
#define INTERPOLATED 12

/* t: the difference of `code` to the largest one in log2 units of 2^-20. */
static int64_t exponent(const mps_along_axis *s, int64_t most, int64_t code) {
    const int64_t difference = most - code < INT32_MAX ? most - code : INT32_MAX;
    return mps_rescale(difference, s->multiplier, s->shift, 0);
}

/* 2^30 * 2^(-t / 2^20) */
static int64_t power(const mps_along_axis *s, const int32_t *table, int64_t most, int64_t code) {
    const int64_t beyond = INT64_C(31) << FRACTION;
    int64_t t = exponent(s, most, code), position;
    const int32_t *entry;
    if (t > beyond)
        t = beyond;
    entry = table + ((t & ((INT64_C(1) << FRACTION) - 1)) >> INTERPOLATED);
    position = t & ((INT64_C(1) << INTERPOLATED) - 1);
    return (entry[0] - mps_shift_round((int64_t)(entry[0] - entry[1]) * position, INTERPOLATED)) >>
           (t >> FRACTION);
}

static int64_t largest(const mps_along_axis *s, const void *input, size_t start) {
    int64_t most = mps_get(input, s->input_type, start);
    for (size_t k = 1; k < (size_t)s->length; k++) {
        const int32_t code = mps_get(input, s->input_type, start + k * (size_t)s->inner);
        if (code > most)
            most = code;
    }
    return most;
}

static int64_t sum_of_powers(const mps_along_axis *s, const int32_t *table, int64_t most,
                             const void *input, size_t start) {
    int64_t sum = 0;
    for (size_t k = 0; k < (size_t)s->length; k++)
        sum += power(s, table, most, mps_get(input, s->input_type, start + k * (size_t)s->inner));
    return sum;
}

void mps_softmax(const mps_along_axis *s, const int32_t *table, const void *input, void *output) {
    const size_t inner = (size_t)s->inner, length = (size_t)s->length;
    for (size_t i = 0; i < (size_t)s->outer * inner; i++) {
        const size_t start = i / inner * length * inner + i % inner;
        const int64_t most = largest(s, input, start);
        const int64_t sum = sum_of_powers(s, table, most, input, start);
        for (size_t k = 0; k < length; k++) {
            const size_t at = start + k * inner;
            const int64_t p = power(s, table, most, mps_get(input, s->input_type, at));
            mps_set(output, s->output_type, at, (int32_t)mps_divide_round(p << 15, sum));
        }
    }
}

/* log2(sum / 2^30) in units of 2^-20, sum >= 2^30 */
static int64_t logarithm(int64_t sum, const int32_t *table) {
    const int places = 22; /* below the 8 bits that pick an entry */
    int64_t whole = 0, rest, left, right;
    for (; sum >= INT64_C(2) << 30; sum >>= 1)
        whole++;
    rest = sum - (INT64_C(1) << 30);
    left = table[rest >> places], right = table[(rest >> places) + 1];
    rest &= (INT64_C(1) << places) - 1;
    return (whole << FRACTION) + left + mps_shift_round((right - left) * rest, places);
}

void mps_log_softmax(const mps_log_along_axis *step, const int32_t *powers,
                     const int32_t *logarithms, const void *input, void *output) {
    const mps_along_axis *s = &step->axis;
    const size_t inner = (size_t)s->inner, length = (size_t)s->length;
    for (size_t i = 0; i < (size_t)s->outer * inner; i++) {
        const size_t start = i / inner * length * inner + i % inner;
        const int64_t most = largest(s, input, start);
        const int64_t log2 = logarithm(sum_of_powers(s, powers, most, input, start), logarithms);
        for (size_t k = 0; k < length; k++) {
            const size_t at = start + k * inner;
            int64_t t = exponent(s, most, mps_get(input, s->input_type, at)) + log2;
            if (t > INT32_MAX)
                t = INT32_MAX;
            t = step->output_zero - mps_rescale(t, step->multiplier, step->shift, 0);
            mps_set(output, s->output_type, at, mps_clip(t, step->low, step->high));
        }
    }
}

void mps_argmax(const mps_along_axis *s, const void *input, void *output) {
    const size_t inner = (size_t)s->inner, length = (size_t)s->length;
    for (size_t i = 0; i < (size_t)s->outer * inner; i++) {
        const size_t start = i / inner * length * inner + i % inner;
        size_t best = 0;
        for (size_t k = 1; k < length; k++)
            if (mps_get(input, s->input_type, start + k * inner) >
                mps_get(input, s->input_type, start + best * inner))
                best = k; /* the first of equal ones stays */
        mps_set(output, s->output_type, i, (int32_t)best);
    }
}
