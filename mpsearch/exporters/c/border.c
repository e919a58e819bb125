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
        double code;
        if (b->is_signed) {
            code = rint((double)values[i] / b->scale);
        } else {
            const float scaled = values[i] * b->inverse;
            code = rint((double)scaled);
        }
        code += b->zero;
        if (!(code > b->low))
            code = b->low; /* also what is not a number */
        if (code > b->high)
            code = b->high;
        mps_set(codes, type, first + i, (int32_t)code);
    }
}

double network_real(int i) {
    const int32_t code = mps_get(network_output(), network_result.type, (size_t)i);
    return ((double)code - OUTPUT.zero) * OUTPUT.scale;
}
