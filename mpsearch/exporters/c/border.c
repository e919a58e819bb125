#include "border.h"

#include <math.h>

#include "network.h"

typedef struct {
    float inverse; /* 1 / scale in float32, as codes are made */
    double scale;  /* of a signed entry */
    int is_signed;
    int32_t zero, low, high;
} border;

#include "scales.h" /* static const border ENTRIES[], OUTPUT */

void network_quantize(int entry, const float *values) {
    network_quantize_part(entry, 0, network_entries[entry].count, values);
}

void network_quantize_part(int entry, size_t first, size_t count, const float *values) {
    const border *b = &ENTRIES[entry];
    void *codes = network_entry(entry);
    const mps_type type = network_entries[entry].type;
    for (size_t i = 0; i < count; i++) {
#if SIGNED_ENTRIES
        if (b->is_signed) {
            const double code = rint((double)values[i] / b->scale) + b->zero;
            /* the first comparison is also true of what is not a number */
            mps_set(codes, type, first + i,
                    !(code > b->low) ? b->low
                    : code > b->high ? b->high
                                     : (int32_t)code);
            continue;
        }
#endif
        const float code = rintf(values[i] * b->inverse) + (float)b->zero; /* exact up to 2^24 */
        mps_set(codes, type, first + i,
                !(code > (float)b->low) ? b->low
                : code > (float)b->high ? b->high
                                        : (int32_t)code);
    }
}

double network_real(int i) {
    const int32_t code = mps_get(network_output(), network_result.type, (size_t)i);
    return ((double)code - OUTPUT.zero) * OUTPUT.scale;
}
