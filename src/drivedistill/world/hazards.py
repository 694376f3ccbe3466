"""Corner kinds."""
from drivedistill.world import regular
fallen_cargo = animal = construction = overturned = ped_dash = wrong_way = stroller = odd_vehicle = obscured_sign = regular.lane_keep
