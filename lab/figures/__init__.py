"""`maglab figures`: what §5.3 of the paper measures of lookup tables, measured again, next to the paper's numbers.

Figure 11 and the over-provisioning that goes with it; figure 12. Figures 8 to 10 are about packets a second, and come
from `maglab bench`.
"""
