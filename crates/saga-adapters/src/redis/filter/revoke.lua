-- Nothing is published and nothing under construction.
forget('pub')
forget('bld')
return 1
