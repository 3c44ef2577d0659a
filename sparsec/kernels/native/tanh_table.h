/*
 * tanh where a register holds a table: the interval of |v| picks a polynomial. Intervals are a quarter of an octave of
 * |v| + 5/8, which makes 16 of them from 0 to 9.375. Each polynomial has nearly the least greatest relative error that its degree
 * allows, at most 5.5e-8. Results are within 1.3 units in the last place, and those of greater v no more than one unit less.
 */
#ifndef SPARSEC_TANH_TABLE_H
#define SPARSEC_TANH_TABLE_H

enum {
    TANH_DEGREE = 5,
    TANH_SHIFT = 21, /* beyond these bits of |v| + 5/8, the lowest four say which interval */
};

static const float TANH_BEFORE = 0.625f, TANH_MOST = 9.25f; /* tanh of the latter is 1 */

/* Where an interval begins, and the coefficients of the polynomial in what |v| is beyond that. */
static const float TANH_TABLE[TANH_DEGREE + 2][16] = {
    {
        1.375f, 1.875f, 2.375f, 2.875f, 3.375f, 4.375f, 5.375f, 6.375f,
        7.375f, 0.0f, 0.125f, 0.25f, 0.375f, 0.625f, 0.875f, 1.125f,
    },
    {
        0.879826665f, 0.954045236f, 0.982845008f, 0.993654609f, 0.997660995f, 0.999683142f, 0.999957085f, 0.999994218f,
        0.999999225f, 0.0f, 0.124352999f, 0.244918659f, 0.3583574f, 0.554599702f, 0.703905642f, 0.809301078f,
    },
    {
        0.225910082f, 0.089799732f, 0.0340172201f, 0.0126527902f, 0.0046702018f, 0.00063275767f, 8.70029835e-05f, 1.04687588e-05f,
        1.29740147e-06f, 1.0f, 0.984537542f, 0.94001615f, 0.871578753f, 0.692423224f, 0.504509509f, 0.345030487f,
    },
    {
        -0.198882714f, -0.0856997594f, -0.0334495753f, -0.0126036238f, -0.00462940335f, -0.000624315697f, -9.52445043e-05f, -2.46506397e-06f,
        -4.34634586e-07f, 3.11896969e-07f, -0.122512378f, -0.230311945f, -0.31226781f, -0.384146482f, -0.354904354f, -0.279204071f,
    },
    {
        0.100718319f, 0.0519327261f, 0.0215583909f, 0.00843110587f, 0.00294000539f, 0.000387065782f, 8.23474766e-05f, -1.80169063e-05f,
        -6.46755382e-07f, -0.333355635f, -0.311064631f, -0.255078256f, -0.179920882f, -0.0164038651f, 0.0794164464f, 0.110805057f,
    },
    {
        -0.0262688417f, -0.0210872851f, -0.00984112732f, -0.00426062103f, -0.00119813718f, -0.000147785773f, -5.4179618e-05f, 2.59764383e-05f,
        5.87029945e-07f, 0.000472800544f, 0.0628254786f, 0.123687699f, 0.179288641f, 0.132114604f, 0.0702638179f, 0.00254183402f,
    },
    {
        0.00115947856f, 0.00483995723f, 0.00267802179f, 0.00138583896f, 0.000239506713f, 2.62325048e-05f, 1.7209406e-05f, -1.09897292e-05f,
        -1.35148568e-07f, 0.129986018f, 0.161927804f, 0.109820232f, -0.0252952222f, -0.0516984127f, -0.0673995391f, -0.0235649962f,
    },
};

#endif
