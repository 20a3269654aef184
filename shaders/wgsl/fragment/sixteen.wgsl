// Fragments of 16 x 16, as most tensor cores have them.

enable wgpu_cooperative_matrix;
enable f16;

const FRAGMENT: u32 = 16u;

alias frag_x_t = coop_mat16x16<f16, A>;
alias frag_w_t = coop_mat16x16<f16, B>;
alias frag_sum_t = coop_mat16x16<f32, C>;
