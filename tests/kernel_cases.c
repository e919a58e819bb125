/* One line per case: the kind of kernel, then its numbers; one line of results for each. */
#include <stdio.h>
#include "lines.h"
#include "products.h"
#include "rescaling.h"
#include "unpacking.h"
static long long next(void) {
    long long value = 0;
    if (scanf("%lld", &value) != 1) return -1;
    return value;
}
static void show(const int32_t *x, int count) {
    for (int i = 0; i < count; i++) printf("%ld ", (long)x[i]);
    printf("%s\n", VARIANT);
}
int main(void) {
    static int8_t w[8192], line[8192];
    static unsigned char codes[8192], patches[8192];
    static int32_t sums[64];
    static int32_t line_sums[2][MPS_STRETCH][MPS_TILE];
    int kind;
    while (scanf("%d", &kind) == 1) {
        mps_layer layer = {0};
        if (kind == 0) { /* products: run, offset, groups, more; weights; codes */
            int groups, more;
            layer.run = (int)next(), layer.offset = (int32_t)next();
            groups = (int)next(), more = (int)next();
            for (int i = 0; i < 32 * groups; i++) w[i] = (int8_t)next();
            for (int i = 0; i < 16 * groups; i++) codes[i] = (unsigned char)next();
            for (int i = 0; i < 32; i++) sums[i] = i;
            for (int p = 0; p < 4; p++)
                mps_centre(&layer, codes + 4 * groups * p, 4 * groups,
                           patches + (size_t)(4 * groups * p * mps_code_bytes(&layer)));
            mps_products(&layer, w, patches, (size_t)(4 * groups * mps_code_bytes(&layer)), 4,
                         groups, sums, more);
            show(sums, 32);
        } else if (kind == 1) { /* taps: run, count, positions; weights; codes, one place apart */
            const int8_t *taps[MPS_TAPS + 1];
            const int run = (int)next(), count = (int)next(), positions = (int)next();
            memset(w, 0, sizeof w);
            for (int i = 0; i < 16 * count; i++) w[i] = (int8_t)next();
            for (int i = 0; i < 16 * (count + positions); i++) codes[i] = (unsigned char)next();
            mps_copy_places(codes, 16, 128, count + positions, line);
            for (int t = 0; t <= count; t++) taps[t] = line + 16 * (t < count ? t : 0);
            mps_line(run, w, taps, count, 16, 0, positions, line_sums[0][0], line_sums[1][0]);
            for (int p = 0; p < positions; p++)
                for (int i = 0; i < 16; i++) printf("%ld ", (long)line_sums[i / 8][p][i % 8]);
            printf("%s\n", VARIANT);
        } else if (kind == 2) { /* rescaling: way, raise, type, zero, low, high; 8 constants; 40 sums */
            mps_constants constants;
            layer.rounding = next() ? MPS_HALF_UP : MPS_EXACT;
            layer.raise = (int)next();
            layer.output_type = next() ? MPS_I32 : MPS_U8;
            layer.output_zero = (int32_t)next();
            layer.low = (int32_t)next(), layer.high = (int32_t)next();
            for (int i = 0; i < 8; i++) {
                constants.base[i] = (int32_t)next();
                constants.multiplier[i] = (int32_t)next();
                constants.shift[i] = (int32_t)next();
            }
            memset(sums, 0, sizeof sums);
            for (int i = 0; i < 40; i++) sums[i] = (int32_t)next();
            mps_finish_rows(&layer, &constants, sums, 5, 8, patches, 0, 8);
            for (int i = 0; i < 40; i++)
                printf("%ld ", (long)mps_get(patches, layer.output_type, (size_t)i));
            printf("%s\n", VARIANT);
        } else { /* unpacking: bits, first code, count; bytes */
            const int bits = (int)next(), start = (int)next(), count = (int)next();
            for (int i = 0; i < (bits * (start + count) + 7) / 8; i++)
                codes[i] = (unsigned char)next();
            mps_unpack(codes, bits, (size_t)start, count, w);
            for (int i = 0; i < count; i++) printf("%d ", w[i]);
            printf("%s\n", VARIANT);
        }
    }
    return 0;
}
