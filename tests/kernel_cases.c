/* One line per case: the kind of kernel, then its numbers; one line of results for each. */
#include <stdio.h>
#include "lines.h"
#include "products.h"
#include "rescaling.h"
#include "unpacking.h"
static long long next(void) {
    long long value = 0;
    if (scanf("%lld", &value) != 1)
        return -1;
    return value;
}
static mps_constants constants_of(void) {
    mps_constants constants;
    for (int i = 0; i < 8; i++) {
        constants.base[i] = (int32_t)next();
        constants.multiplier[i] = (int32_t)next();
        constants.shift[i] = (int32_t)next();
    }
    return constants;
}
static void show_codes(const unsigned char *codes, int count) {
    for (int i = 0; i < count; i++)
        printf("%d ", codes[i]);
    printf("%s\n", VARIANT);
}
static void show(const int32_t *x, int count) {
    for (int i = 0; i < count; i++)
        printf("%ld ", (long)x[i]);
    printf("%s\n", VARIANT);
}
int main(void) {
    static int8_t w[8192], line[8192];
    static unsigned char codes[8192], patches[16384];
    static int32_t sums[256];
    static unsigned char result[1024];
    static int32_t line_sums[2][MPS_STRETCH][MPS_TILE];
    int kind;
    while (scanf("%d", &kind) == 1) {
        mps_layer layer = {0};
        if (kind == 0) { /* products: run, offset, groups, positions, more; weights; codes */
            int groups, positions, more;
            layer.run = (int)next(), layer.offset = (int32_t)next();
            groups = (int)next(), positions = (int)next(), more = (int)next();
            for (int i = 0; i < 32 * groups; i++)
                w[i] = (int8_t)next();
            for (int i = 0; i < 4 * positions * groups; i++)
                codes[i] = (unsigned char)next();
            for (int i = 0; i < 8 * positions; i++)
                sums[i] = i;
            for (int p = 0; p < positions; p++)
                mps_centre(&layer, codes + 4 * groups * p, 4 * groups,
                           patches + (size_t)(4 * groups * p * mps_code_bytes(&layer)));
            mps_products(&layer, w, patches, (size_t)(4 * groups * mps_code_bytes(&layer)),
                         positions, groups, sums, more);
            show(sums, 8 * positions);
        } else if (kind == 4) { /* the same to bytes: also way, raise, zero, low, high; constants */
            mps_constants constants;
            int groups, positions;
            layer.run = (int)next(), layer.offset = (int32_t)next();
            groups = (int)next(), positions = (int)next();
            layer.rounding = next() ? MPS_HALF_UP : MPS_EXACT, layer.raise = (int)next();
            layer.output_zero = (int32_t)next();
            layer.low = (int32_t)next(), layer.high = (int32_t)next();
            constants = constants_of();
            for (int i = 0; i < 32 * groups; i++)
                w[i] = (int8_t)next();
            for (int i = 0; i < 4 * positions * groups; i++)
                codes[i] = (unsigned char)next();
            for (int p = 0; p < positions; p++)
                mps_centre(&layer, codes + 4 * groups * p, 4 * groups,
                           patches + (size_t)(4 * groups * p * mps_code_bytes(&layer)));
            memset(result, 77, sizeof result);
            if (!mps_products_to_bytes(&layer, &constants, w, patches,
                                       (size_t)(4 * groups * mps_code_bytes(&layer)), positions,
                                       groups, result, 11)) {
                mps_products(&layer, w, patches, (size_t)(4 * groups * mps_code_bytes(&layer)),
                             positions, groups, sums, 0);
                mps_finish_rows(&layer, &constants, sums, positions, 8, NULL, result, 0, 11);
            }
            show_codes(result, 11 * positions); /* the three in between must stay */
        } else if (kind == 5) { /* nine taps to bytes: run, positions; as above; 16 constants */
            const int8_t *taps[10];
            mps_constants constants[2];
            int positions;
            layer.run = (int)next(), layer.offset = 128, positions = (int)next();
            layer.rounding = next() ? MPS_HALF_UP : MPS_EXACT, layer.raise = (int)next();
            layer.output_zero = (int32_t)next();
            layer.low = (int32_t)next(), layer.high = (int32_t)next();
            constants[0] = constants_of(), constants[1] = constants_of();
            memset(w, 0, sizeof w);
            for (int i = 0; i < 16 * 9; i++)
                w[i] = (int8_t)next();
            for (int i = 0; i < 16 * (9 + positions); i++)
                codes[i] = (unsigned char)next();
            mps_copy_places(codes, 16, 128, 9 + positions, line);
            for (int t = 0; t < 10; t++)
                taps[t] = line + 16 * (t < 9 ? t : 0);
            memset(result, 77, sizeof result);
            if (!mps_line_to_bytes(&layer, constants, w, taps, 9, 16, positions, result, 17)) {
                mps_line(layer.run, w, taps, 9, 16, 0, positions, line_sums[0][0], line_sums[1][0]);
                for (int half = 0; half < 2; half++)
                    mps_finish_rows(&layer, &constants[half], line_sums[half][0], positions, 8,
                                    NULL, result, (size_t)(8 * half), 17);
            }
            show_codes(result, 17 * positions);
        } else if (kind == 1) { /* taps: run, count, positions; weights; codes, one place apart */
            const int8_t *taps[MPS_TAPS + 1];
            const int run = (int)next(), count = (int)next(), positions = (int)next();
            memset(w, 0, sizeof w);
            for (int i = 0; i < 16 * count; i++)
                w[i] = (int8_t)next();
            for (int i = 0; i < 16 * (count + positions); i++)
                codes[i] = (unsigned char)next();
            mps_copy_places(codes, 16, 128, count + positions, line);
            for (int t = 0; t <= count; t++)
                taps[t] = line + 16 * (t < count ? t : 0);
            mps_line(run, w, taps, count, 16, 0, positions, line_sums[0][0], line_sums[1][0]);
            for (int p = 0; p < positions; p++)
                for (int i = 0; i < 16; i++)
                    printf("%ld ", (long)line_sums[i / 8][p][i % 8]);
            printf("%s\n", VARIANT);
        } else if (kind ==
                   2) { /* rescaling: way, raise, type, zero, low, high; 8 constants; 40 sums */
            mps_constants constants;
            layer.rounding = next() ? MPS_HALF_UP : MPS_EXACT;
            layer.raise = (int)next();
            layer.output_type = next() ? MPS_I32 : MPS_U8;
            layer.output_zero = (int32_t)next();
            layer.low = (int32_t)next(), layer.high = (int32_t)next();
            constants = constants_of();
            memset(sums, 0, sizeof sums);
            for (int i = 0; i < 40; i++)
                sums[i] = (int32_t)next();
            mps_finish_rows(&layer, &constants, sums, 5, 8, NULL, patches, 0, 8);
            for (int i = 0; i < 40; i++)
                printf("%ld ", (long)mps_get(patches, layer.output_type, (size_t)i));
            printf("%s\n", VARIANT);
        } else if (kind == 6) { /* codes that share bytes: bits, count; bytes */
            const int bits = (int)next(), count = (int)next();
            for (int i = 0; i < (bits * count + 7) / 8; i++)
                patches[i] = (unsigned char)next();
            mps_spread(bits == 4 ? MPS_U4 : MPS_U2, patches, count, codes);
            show_codes(codes, count);
        } else { /* unpacking: bits, first code, count; bytes */
            const int bits = (int)next(), start = (int)next(), count = (int)next();
            for (int i = 0; i < (bits * (start + count) + 7) / 8; i++)
                codes[i] = (unsigned char)next();
            mps_unpack(codes, bits, (size_t)start, count, w);
            for (int i = 0; i < count; i++)
                printf("%d ", w[i]);
            printf("%s\n", VARIANT);
        }
    }
    return 0;
}
